WITH begun AS (
    SELECT bidder, date_time,
           coalesce(date_time - lag(date_time) OVER own >= 10000, 1) AS begins
    FROM bids
    WINDOW own AS (PARTITION BY bidder ORDER BY date_time)
),
numbered AS (
    SELECT bidder, date_time, sum(begins) OVER (PARTITION BY bidder ORDER BY date_time) AS session
    FROM begun
)
SELECT min(date_time) AS window_start, max(date_time) + 10000 AS window_end, bidder, count(*) AS bids
FROM numbered
GROUP BY bidder, session
