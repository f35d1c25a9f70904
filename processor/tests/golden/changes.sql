CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK out WITH (topic = 'out', key = 'window_start, place', emit = 'changes', grace = INTERVAL '2 minutes');
INSERT INTO out
SELECT window_start, place, count(*) AS trips, max(distance) AS longest
FROM TUMBLE(trips, pickup_at, INTERVAL '15 minutes')
GROUP BY window_start, place;
