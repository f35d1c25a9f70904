-- Selection: the bids for some auctions.
CREATE SOURCE bids WITH (topic = 'bids', event_time = 'date_time', out_of_orderness = INTERVAL '5 seconds');
CREATE SINK out WITH (topic = 'out', key = 'auction, bidder, date_time');
INSERT INTO out
SELECT auction, bidder, price, date_time
FROM bids
WHERE auction % 123 = 0;
