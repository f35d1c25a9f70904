CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK out WITH (topic = 'out', key = 'window_start, vendor_id');
INSERT INTO out
SELECT window_start, window_end, vendor_id,
       count(*) AS trips,
       sum(passenger_count) AS passengers,
       avg(distance) AS mean_distance,
       max(distance) AS longest,
       count(*) FILTER (WHERE passenger_count > 2) AS large,
       sum(distance) FILTER (WHERE passenger_count = 1) AS alone
FROM TUMBLE(trips, pickup_at, INTERVAL '5 minutes')
WHERE passenger_count > 0
GROUP BY window_start, window_end, vendor_id
HAVING count(*) > 1;
