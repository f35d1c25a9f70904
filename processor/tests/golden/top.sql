CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK out WITH (topic = 'out', key = 'window_start, place');
INSERT INTO out
SELECT window_start, place, count(*) AS trips
FROM TUMBLE(trips, pickup_at, INTERVAL '10 minutes')
GROUP BY window_start, place
ORDER BY count(*) DESC, sum(distance) DESC
LIMIT 3;
