-- Highest bid: of each ten seconds.
CREATE SOURCE bids WITH (topic = 'bids', event_time = 'date_time', out_of_orderness = INTERVAL '5 seconds');
CREATE SINK out WITH (topic = 'out', key = 'window_start');
INSERT INTO out
SELECT window_start, window_end, max(price) AS price, max_by(auction, price) AS auction,
       max_by(bidder, price) AS bidder, max_by(date_time, price) AS date_time
FROM TUMBLE(bids, date_time, INTERVAL '10 seconds')
GROUP BY window_start, window_end;
