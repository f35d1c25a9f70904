SELECT auction, bidder, price, date_time FROM bids WHERE auction % 123 = 0
