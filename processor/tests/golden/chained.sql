CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK counts WITH (topic = 'counts', key = 'start, vendor_id');
INSERT INTO counts
SELECT window_start AS start, vendor_id, count(*) AS trips
FROM TUMBLE(trips, pickup_at, INTERVAL '5 minutes')
GROUP BY window_start, vendor_id;

CREATE SOURCE five_minutes WITH (topic = 'counts', event_time = 'start', out_of_orderness = INTERVAL '10 minutes');
CREATE SINK out WITH (topic = 'out', key = 'window_start, vendor_id');
INSERT INTO out
SELECT window_start, vendor_id, max(trips) AS busiest, sum(trips) AS trips, count(*) AS windows
FROM TUMBLE(five_minutes, start, INTERVAL '1 hour')
GROUP BY window_start, vendor_id;
