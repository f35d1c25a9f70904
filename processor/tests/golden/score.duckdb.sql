WITH windows AS (SELECT pickup_ms // 600000 * 600000 AS window_start, vendor_id, count(*) AS trips FROM trips GROUP BY ALL),
scored AS (
    SELECT *, count(*) OVER past AS n, avg(trips) OVER past AS mean, stddev_samp(trips) OVER past AS deviation FROM windows
    WINDOW past AS (PARTITION BY vendor_id ORDER BY window_start ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
SELECT window_start, vendor_id, trips, CASE WHEN n >= 3 AND deviation > 0 THEN (trips - mean) / deviation END AS score FROM scored
