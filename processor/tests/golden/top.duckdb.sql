SELECT pickup_ms // 600000 * 600000 AS window_start, place, count(*) AS trips
FROM trips GROUP BY 1, 2
QUALIFY row_number() OVER (PARTITION BY window_start ORDER BY count(*) DESC, sum(distance) DESC) <= 3
