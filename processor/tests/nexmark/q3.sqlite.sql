SELECT persons.name, persons.city, persons.state, auctions.id AS id
FROM auctions JOIN persons ON persons.id = auctions.seller
WHERE category = 10 AND state IN ('OR', 'ID', 'CA')
