SELECT place, count(*) AS trips, sum(passenger_count) AS passengers, avg(distance) AS mean_distance
FROM trips WHERE passenger_count > 0 GROUP BY place
