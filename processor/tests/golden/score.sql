CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK out WITH (topic = 'out', key = 'window_start, vendor_id');
INSERT INTO out
SELECT window_start, vendor_id, count(*) AS trips, anomaly_score(count(*)) AS score
FROM TUMBLE(trips, pickup_at, INTERVAL '10 minutes')
GROUP BY window_start, vendor_id;
