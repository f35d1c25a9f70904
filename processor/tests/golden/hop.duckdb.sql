SELECT start AS window_start, vendor_id, count(*) AS trips, avg(distance) AS mean_distance
FROM trips, (SELECT unnest(range((SELECT min(pickup_ms) FROM trips) // 120000 * 120000 - 600000,
                                 (SELECT max(pickup_ms) FROM trips) + 1, 120000)) AS start)
WHERE pickup_ms >= start AND pickup_ms < start + 300000
GROUP BY ALL
