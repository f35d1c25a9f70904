-- Local item suggestion: who sells in some states things of a category. The sellers are looked up in a table.
CREATE SOURCE auctions WITH (topic = 'auctions', event_time = 'date_time', out_of_orderness = INTERVAL '5 seconds');
CREATE REFERENCE TABLE persons WITH (topic = 'persons', key = 'id');
CREATE SINK out WITH (topic = 'out', key = 'id');
INSERT INTO out
SELECT person.name, person.city, person.state, auctions.id AS id
FROM auctions JOIN persons AS person ON person.id = auctions.seller
WHERE auctions.category = 10 AND person.state IN ('OR', 'ID', 'CA');
