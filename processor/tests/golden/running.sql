CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK out WITH (topic = 'out', key = 'place', emit = 'changes');
INSERT INTO out
SELECT place, count(*) AS trips, sum(passenger_count) AS passengers, avg(distance) AS mean_distance
FROM trips
WHERE passenger_count > 0
GROUP BY place;
