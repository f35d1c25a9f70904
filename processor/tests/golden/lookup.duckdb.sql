SELECT pickup_ms // 3600000 * 3600000 AS window_start, coalesce(p.zone, 'elsewhere') AS zone, count(*) AS trips,
       sum(p.toll) AS tolls, count(*) FILTER (WHERE p.toll > t.distance) AS dear, max(nearest.toll) AS nearest
FROM trips AS t
JOIN places AS nearest ON nearest.place = 'b' AND nearest.vendor_id = t.vendor_id
LEFT JOIN places AS p ON t.place = p.place AND t.vendor_id = p.vendor_id
WHERE passenger_count > 0 AND (p.toll IS NULL OR p.toll < 15)
GROUP BY ALL
