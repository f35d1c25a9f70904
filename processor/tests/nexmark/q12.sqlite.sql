SELECT record_time / 10000 * 10000 AS window_start, record_time / 10000 * 10000 + 10000 AS window_end, bidder,
       count(*) AS bids
FROM bids
GROUP BY 1, 2, 3
