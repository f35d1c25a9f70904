-- Where people go, by the names of places: the ten zones, and the boroughs, with most drop-offs in each hour.
--
-- The names come from a table of yours beside this file, zones.csv: a header `cell,zone,borough`, and a line for each H3 cell
-- of resolution 9 (about 0.1 km²) that has a name. H3's libraries make one from the outlines of zones (polygonToCells).
-- What lies in no cell of the table is counted as `unknown`.
--
-- Run it beside the statistics, under an application id of its own, or try it with
--   headway demo --job processor/jobs/taxi_zones.sql


CREATE SOURCE trips WITH (
    topic            = 'trips',
    event_time       = 'pickup_at',
    out_of_orderness = INTERVAL '5 minutes',
    idle_timeout     = INTERVAL '30 seconds'
);

CREATE REFERENCE TABLE zones (cell TEXT NOT NULL, zone TEXT, borough TEXT) WITH (path = 'zones.csv', key = 'cell');


CREATE SINK top_zones WITH (topic = 'top_zones', key = 'window_start, borough, zone');

INSERT INTO top_zones
SELECT
    window_start,
    window_end,
    coalesce(z.borough, 'unknown') AS borough,
    coalesce(z.zone, 'unknown')    AS zone,
    count(*)                       AS trip_count,
    avg(t.gc_distance)             AS average_trip_distance
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') AS t
LEFT JOIN zones AS z ON z.cell = h3_cell(t.dropoff_latitude, t.dropoff_longitude, 9)
-- A coordinate of 0 stands for an unknown place.
WHERE t.dropoff_longitude <> 0 AND t.dropoff_latitude <> 0
GROUP BY window_start, window_end, coalesce(z.borough, 'unknown'), coalesce(z.zone, 'unknown')
ORDER BY count(*) DESC, coalesce(z.borough, 'unknown'), coalesce(z.zone, 'unknown')
LIMIT 10;


CREATE SINK top_boroughs WITH (topic = 'top_boroughs', key = 'window_start, borough');

INSERT INTO top_boroughs
SELECT
    window_start,
    window_end,
    coalesce(z.borough, 'unknown') AS borough,
    count(*)                       AS trip_count,
    avg(t.gc_distance)             AS average_trip_distance
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') AS t
LEFT JOIN zones AS z ON z.cell = h3_cell(t.dropoff_latitude, t.dropoff_longitude, 9)
WHERE t.dropoff_longitude <> 0 AND t.dropoff_latitude <> 0
GROUP BY window_start, window_end, coalesce(z.borough, 'unknown')
ORDER BY count(*) DESC, coalesce(z.borough, 'unknown')
LIMIT 10;
