WITH marked AS (
    SELECT *, pickup_ms - lag(pickup_ms) OVER (PARTITION BY vendor_id ORDER BY pickup_ms) < 45000 AS goes_on FROM trips),
numbered AS (
    SELECT *, sum(CASE WHEN goes_on THEN 0 ELSE 1 END)
              OVER (PARTITION BY vendor_id ORDER BY pickup_ms ROWS UNBOUNDED PRECEDING) AS session FROM marked)
SELECT min(pickup_ms) AS window_start, max(pickup_ms) + 45000 AS window_end, vendor_id, count(*) AS trips,
       sum(passenger_count) AS passengers, min(distance) AS shortest
FROM numbered GROUP BY vendor_id, session
