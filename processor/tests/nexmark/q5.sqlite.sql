WITH RECURSIVE
hops(hop) AS (SELECT 0 UNION ALL SELECT hop + 1 FROM hops WHERE hop < 4),
counted AS (
    SELECT date_time / 2000 * 2000 - hop * 2000 AS window_start, auction, count(*) AS bids
    FROM bids JOIN hops
    GROUP BY 1, 2
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY window_start ORDER BY bids DESC, auction) AS place
    FROM counted
)
SELECT window_start, window_start + 10000 AS window_end, auction, bids FROM ranked WHERE place = 1
