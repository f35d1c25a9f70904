CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK out WITH (topic = 'out', key = 'id');
INSERT INTO out
SELECT id, vendor_id, pickup_at, distance * 1000 AS metres, upper(place) AS place
FROM trips
WHERE distance > 5 AND passenger_count BETWEEN 1 AND 3;
