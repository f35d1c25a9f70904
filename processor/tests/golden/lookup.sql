CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE REFERENCE TABLE places (place TEXT NOT NULL, vendor_id BIGINT NOT NULL, zone TEXT, toll DOUBLE)
  WITH (path = 'places.csv', key = 'place, vendor_id');
CREATE SINK out WITH (topic = 'out', key = 'window_start, zone');
INSERT INTO out
SELECT window_start, coalesce(p.zone, 'elsewhere') AS zone, count(*) AS trips, sum(p.toll) AS tolls,
       count(*) FILTER (WHERE p.toll > t.distance) AS dear, max(nearest.toll) AS nearest
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') AS t
JOIN places AS nearest ON nearest.place = 'b' AND nearest.vendor_id = t.vendor_id
LEFT JOIN places AS p ON t.place = p.place AND t.vendor_id = p.vendor_id
WHERE passenger_count > 0 AND (p.toll IS NULL OR p.toll < 15)
GROUP BY window_start, coalesce(p.zone, 'elsewhere');
