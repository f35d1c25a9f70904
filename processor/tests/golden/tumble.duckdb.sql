SELECT pickup_ms // 300000 * 300000 AS window_start, window_start + 300000 AS window_end, vendor_id,
       count(*) AS trips, sum(passenger_count) AS passengers, avg(distance) AS mean_distance, max(distance) AS longest,
       count(*) FILTER (passenger_count > 2) AS large, sum(distance) FILTER (passenger_count = 1) AS alone
FROM trips WHERE passenger_count > 0 GROUP BY ALL HAVING count(*) > 1
