WITH highest AS (
    SELECT date_time / 10000 * 10000 AS window_start, max(price) AS price
    FROM bids
    GROUP BY 1
)
SELECT window_start, window_start + 10000 AS window_end, bids.price, auction, bidder, date_time
FROM highest JOIN bids ON bids.price = highest.price AND date_time / 10000 * 10000 = window_start
