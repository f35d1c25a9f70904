CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK out WITH (topic = 'out', key = 'window_start, vendor_id');
INSERT INTO out
SELECT window_start, window_end, vendor_id, count(*) AS trips, sum(passenger_count) AS passengers, min(distance) AS shortest
FROM SESSION(trips, pickup_at, INTERVAL '45 seconds')
GROUP BY window_start, window_end, vendor_id;
