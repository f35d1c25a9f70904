-- Statistics of New York taxi trips, per hour and vendor.
--
-- A job has three kinds of statements, with a semicolon behind each:
--   CREATE SOURCE   a topic to read, and how its event time behaves;
--   CREATE SINK     a topic to write, and what makes up the key of its records;
--   INSERT INTO     a query that runs for ever: one result per window and group.


-- The trips. Their columns come from the schema registry (subject trips-value; see schemas/taxi_trip.avsc).
CREATE SOURCE trips WITH (
    topic            = 'trips',

    -- Rows are put into windows by this column, not by the time of their arrival.
    event_time       = 'pickup_at',

    -- A trip may arrive up to five minutes of event time behind the latest one of its partition. A window is closed
    -- when every partition is that far past its end; what arrives later still is counted as late, not lost.
    -- Raise it for a file that is not in the order of time: results then come later, and memory holds more windows.
    out_of_orderness = INTERVAL '5 minutes',

    -- A partition without a record for this long no longer holds the windows of the others open.
    idle_timeout     = INTERVAL '30 seconds'
);


-- The statistics (see schemas/trip_statistics.avsc).
CREATE SINK trip_statistics WITH (
    topic = 'trip_statistics',

    -- There is one result for each window and vendor: a second one with the same key replaces the first.
    key   = 'window_start, vendor_id',

    -- A result is written once, when its window is closed.
    emit  = 'final',

    -- How long a window stays open behind its end, on top of out_of_orderness.
    grace = INTERVAL '0 seconds'
);


INSERT INTO trip_statistics
SELECT
    window_start,
    window_end,
    vendor_id,

    count(*)             AS trip_count,
    sum(passenger_count) AS passenger_count,
    sum(trip_duration)   AS total_trip_duration,
    avg(trip_duration)   AS average_trip_duration,
    avg(gc_distance)     AS average_trip_distance,

    -- Picked up in the rush hours, from 7 to 10 and from 16 to 19 o'clock on New York's clocks. The time zone knows
    -- when daylight saving time begins and ends.
    count(*) FILTER (
        WHERE extract(hour FROM pickup_at AT TIME ZONE 'America/New_York') IN (7, 8, 9, 16, 17, 18)
    ) AS trips_during_peak,

    -- The hour of New York's clocks, 0 to 23, in which most trips began; of several the earliest. In windows of an hour
    -- there is just one; with longer windows it says more.
    mode(extract(hour FROM pickup_at AT TIME ZONE 'America/New_York')) AS peak_hour,

    -- The mean place of pick-up, moved by up to a hundredth of a degree (about a kilometre): an hour with a single
    -- trip would give its passenger's door away. The same window and vendor are moved the same way in every run.
    mask_coordinate(pickup_longitude, 0.01) AS pickup_longitude,
    mask_coordinate(pickup_latitude, 0.01)  AS pickup_latitude,

    -- How unusual the number of trips is: its distance from the mean of the vendor's windows before this one, in standard
    -- deviations. Null for the first three windows.
    anomaly_score(count(*)) AS anomaly_score

-- The windows: an hour each, one behind the other. This is the one place that says so.
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')

-- A coordinate of 0 stands for an unknown place.
WHERE pickup_longitude <> 0
  AND pickup_latitude <> 0
  AND dropoff_longitude <> 0
  AND dropoff_latitude <> 0

GROUP BY window_start, window_end, vendor_id;
