WITH counts AS (SELECT pickup_ms // 300000 * 300000 AS start, vendor_id, count(*) AS n FROM trips GROUP BY ALL)
SELECT start // 3600000 * 3600000 AS window_start, vendor_id, max(n) AS busiest, sum(n) AS trips, count(*) AS windows
FROM counts GROUP BY ALL
