SELECT start AS window_start, place, count(*) AS trips
FROM trips, (SELECT unnest(range((SELECT min(pickup_ms) FROM trips) // 600000 * 600000 - 1200000,
                                 (SELECT max(pickup_ms) FROM trips) + 1, 600000)) AS start)
WHERE pickup_ms >= start AND pickup_ms < start + 1200000
GROUP BY 1, 2
QUALIFY row_number() OVER (PARTITION BY window_start ORDER BY count(*) DESC, sum(distance) DESC) <= 2
