-- Currency conversion: prices in euros.
CREATE SOURCE bids WITH (topic = 'bids', event_time = 'date_time', out_of_orderness = INTERVAL '5 seconds');
CREATE SINK out WITH (topic = 'out', key = 'auction, bidder, date_time');
INSERT INTO out
SELECT auction, bidder, 0.908 * price AS price, date_time, extra
FROM bids;
