SELECT id, vendor_id, pickup_ms AS pickup_at, distance * 1000 AS metres, upper(place) AS place
FROM trips WHERE distance > 5 AND passenger_count BETWEEN 1 AND 3
