-- More questions to the trips: three queries over one source, which share one reading of it.
--
-- Run it beside the statistics, under an application id of its own, or try it with
--   headway demo --job processor/jobs/taxi_analytics.sql


CREATE SOURCE trips WITH (
    topic            = 'trips',
    event_time       = 'pickup_at',
    out_of_orderness = INTERVAL '5 minutes',
    idle_timeout     = INTERVAL '30 seconds'
);


-- Where people go: the ten cells (H3, resolution 8, about 0.7 km²) with most drop-offs in each hour.
CREATE SINK top_dropoffs WITH (topic = 'top_dropoffs', key = 'window_start, cell');

INSERT INTO top_dropoffs
SELECT
    window_start,
    window_end,
    h3_cell(dropoff_latitude, dropoff_longitude, 8) AS cell,
    count(*)                                        AS trip_count,
    avg(gc_distance)                                AS average_trip_distance
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
-- A coordinate of 0 stands for an unknown place.
WHERE dropoff_longitude <> 0 AND dropoff_latitude <> 0
GROUP BY window_start, window_end, h3_cell(dropoff_latitude, dropoff_longitude, 8)
ORDER BY count(*) DESC, h3_cell(dropoff_latitude, dropoff_longitude, 8)
LIMIT 10;


-- How long trips take, by day of New York. The windows are days of UTC; the local day is part of the group, so that a
-- local day has a result in each of the two UTC days that it falls into: add trip_count and total_trip_duration up.
CREATE SINK daily_durations WITH (topic = 'daily_durations', key = 'window_start, local_day');

INSERT INTO daily_durations
SELECT
    window_start,
    window_end,
    CAST(pickup_at AT TIME ZONE 'America/New_York' AS date) AS local_day,
    count(*)                                                AS trip_count,
    sum(trip_duration)                                      AS total_trip_duration,
    avg(trip_duration)                                      AS average_trip_duration,
    approx_median(trip_duration)                            AS median_trip_duration
FROM TUMBLE(trips, pickup_at, INTERVAL '1 day')
GROUP BY window_start, window_end, CAST(pickup_at AT TIME ZONE 'America/New_York' AS date);


-- When people travel: trips by weekday (0 is Sunday) and hour of New York's clocks, over all that ever came. There is no
-- window: a row is written again whenever it has changed.
CREATE SINK travel_times WITH (topic = 'travel_times', key = 'weekday, hour', emit = 'changes');

INSERT INTO travel_times
SELECT
    extract(dow  FROM pickup_at AT TIME ZONE 'America/New_York') AS weekday,
    extract(hour FROM pickup_at AT TIME ZONE 'America/New_York') AS hour,
    count(*)           AS trip_count,
    avg(trip_duration) AS average_trip_duration
FROM trips
GROUP BY
    extract(dow  FROM pickup_at AT TIME ZONE 'America/New_York'),
    extract(hour FROM pickup_at AT TIME ZONE 'America/New_York');
