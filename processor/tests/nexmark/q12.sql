-- Processing-time windows: how many bids of a person the log took in each ten seconds.
CREATE SOURCE bids WITH (topic = 'bids', event_time = 'record_time');
CREATE SINK out WITH (topic = 'out', key = 'window_start, bidder');
INSERT INTO out
SELECT window_start, window_end, bidder, count(*) AS bids
FROM TUMBLE(bids, record_time, INTERVAL '10 seconds')
GROUP BY window_start, window_end, bidder;
