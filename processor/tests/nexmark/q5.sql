-- Hot items: the auction with most bids in the last ten seconds, every two seconds. Of several with as many, the first.
CREATE SOURCE bids WITH (topic = 'bids', event_time = 'date_time', out_of_orderness = INTERVAL '5 seconds');
CREATE SINK out WITH (topic = 'out', key = 'window_start, auction');
INSERT INTO out
SELECT window_start, window_end, auction, count(*) AS bids
FROM HOP(bids, date_time, INTERVAL '2 seconds', INTERVAL '10 seconds')
GROUP BY window_start, window_end, auction
ORDER BY count(*) DESC, auction
LIMIT 1;
