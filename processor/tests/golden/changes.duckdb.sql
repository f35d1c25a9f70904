SELECT pickup_ms // 900000 * 900000 AS window_start, place, count(*) AS trips, max(distance) AS longest
FROM trips GROUP BY ALL
