CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK out WITH (topic = 'out', key = 'window_start, weekday, hour');
INSERT INTO out
SELECT window_start,
       extract(dow FROM pickup_at AT TIME ZONE 'America/New_York') AS weekday,
       extract(hour FROM pickup_at AT TIME ZONE 'America/New_York') AS hour,
       count(*) AS trips
FROM TUMBLE(trips, pickup_at, INTERVAL '1 day')
GROUP BY window_start, extract(dow FROM pickup_at AT TIME ZONE 'America/New_York'),
         extract(hour FROM pickup_at AT TIME ZONE 'America/New_York');
