SELECT pickup_ms // 86400000 * 86400000 AS window_start,
       dayofweek(timezone('America/New_York', to_timestamp(pickup_ms / 1000))) AS weekday,
       hour(timezone('America/New_York', to_timestamp(pickup_ms / 1000))) AS hour,
       count(*) AS trips
FROM trips GROUP BY ALL
