-- User sessions: how many bids a person makes before ten seconds go by without one.
CREATE SOURCE bids WITH (topic = 'bids', event_time = 'date_time', out_of_orderness = INTERVAL '5 seconds');
CREATE SINK out WITH (topic = 'out', key = 'window_start, bidder');
INSERT INTO out
SELECT window_start, window_end, bidder, count(*) AS bids
FROM SESSION(bids, date_time, INTERVAL '10 seconds')
GROUP BY window_start, window_end, bidder;
