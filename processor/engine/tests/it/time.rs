//! Windows, local time, and rows that have no place in any window.

use engine::history::History;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;

use super::support::*;

/// Event times, null included, as a source of its own.
fn times(query: &engine::plan::Query, times: &[Option<i64>]) -> RecordBatch {
    let column = TimestampMillisecondArray::from(times.to_vec()).with_timezone("+00:00");
    RecordBatch::try_new(Arc::clone(&query.input), vec![Arc::new(column)]).unwrap()
}

fn nullable_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(
        "pickup_at",
        timestamp(),
        true,
    )]))
}

fn count_by(select: &str) -> engine::plan::Query {
    let query = format!(
        "SELECT window_start, window_end, {select} AS n FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') \
         GROUP BY window_start"
    );
    planned(&job("window_start", &query), &nullable_schema()).unwrap()
}

const HOUR: i64 = 3_600_000;

#[test]
fn windows_are_aligned_to_1970_before_it_too() {
    let query = count_by("count(*)");
    let batch = times(&query, &[-1, 0, HOUR - 1, HOUR, -HOUR, -HOUR - 1].map(Some));
    let scanned = query.scan(&[batch]).unwrap();
    let result = query
        .finish(
            std::slice::from_ref(&scanned.partial),
            true,
            &mut History::default(),
        )
        .unwrap();
    assert_eq!(longs(&result, "window_start"), [-2 * HOUR, -HOUR, 0, HOUR]);
    assert_eq!(longs(&result, "window_end"), [-HOUR, 0, HOUR, 2 * HOUR]);
    assert_eq!(longs(&result, "n"), [1, 2, 2, 1]);
}

#[test]
fn rows_without_a_usable_event_time_are_dead_with_their_place_and_reason() {
    let query = count_by("count(*)");
    let first = times(&query, &[Some(5), None, Some(i64::MAX), Some(6)]);
    let second = times(&query, &[Some(i64::MIN), Some(7)]);
    let scanned = query.scan(&[first, second]).unwrap();
    assert_eq!(
        (scanned.rows_in, scanned.assigned, scanned.filtered),
        (6, 3, 0)
    );
    let dead: Vec<_> = scanned.dead.iter().map(|dead| dead.row).collect();
    assert_eq!(dead, [1, 2, 4]);
    assert!(
        scanned.dead[0].reason.contains("pickup_at") && scanned.dead[0].reason.contains("null")
    );
    assert!(
        scanned.dead[1].reason.contains("9223372036854775807"),
        "{}",
        scanned.dead[1].reason
    );
    assert_eq!(longs(&scanned.partial, "__rows"), [3]);
}

#[test]
fn rows_that_an_expression_fails_on_are_dead_and_the_others_count() {
    let text = job(
        "window_start",
        "SELECT window_start, sum(1000 / passenger_count) AS n FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') \
         WHERE trip_duration > 10 GROUP BY window_start",
    );
    let query = planned(&text, &trips_schema()).unwrap();
    let mut trips = some_trips(11, 1_000, 1);
    for (row, trip) in trips.iter_mut().enumerate() {
        trip.passengers = i32::from(![3, 500, 501, 999].contains(&row)) * 4;
        trip.duration = if row < 100 && row != 3 { 1 } else { 60 };
    }
    let scanned = query
        .scan(&[batch(&query, &trips[..400]), batch(&query, &trips[400..])])
        .unwrap();
    let dead: Vec<_> = scanned.dead.iter().map(|dead| dead.row).collect();
    assert_eq!(dead, [3, 500, 501, 999]);
    assert!(
        scanned.dead[0].reason.contains("ivide by zero"),
        "{}",
        scanned.dead[0].reason
    );
    assert_eq!((scanned.filtered, scanned.assigned), (99, 897));
    assert_eq!(
        longs(
            &query
                .finish(
                    std::slice::from_ref(&scanned.partial),
                    true,
                    &mut History::default()
                )
                .unwrap(),
            "n"
        ),
        [897 * 250]
    );
}

#[test]
fn local_hours_follow_daylight_saving_time() {
    let query = count_by("sum(extract(hour FROM pickup_at AT TIME ZONE 'America/New_York'))");
    // 2016-03-13: at 7:00 UTC New York's clocks went from 2 to 3; 2016-11-06: at 6:00 UTC from 2 back to 1.
    let spring = 1_457_852_400_000;
    let autumn = 1_478_412_000_000;
    let instants = [
        (spring - HOUR, 1),
        (spring - 1, 1),
        (spring, 3),
        (spring + HOUR, 4),
        (autumn - HOUR, 1),
        (autumn - 1, 1),
        (autumn, 1),
        (autumn + HOUR, 2),
        (1_467_331_200_000, 20),
        (0, 19),
    ];
    for (instant, hour) in instants {
        let scanned = query.scan(&[times(&query, &[Some(instant)])]).unwrap();
        assert_eq!(
            longs(
                &query
                    .finish(
                        std::slice::from_ref(&scanned.partial),
                        true,
                        &mut History::default()
                    )
                    .unwrap(),
                "n"
            ),
            [hour],
            "{instant}"
        );
    }
}

/// New York's local time.
fn new_york(ms: i64) -> chrono::DateTime<chrono_tz::Tz> {
    chrono::DateTime::from_timestamp_millis(ms)
        .unwrap()
        .with_timezone(&chrono_tz::America::New_York)
}

#[test]
fn local_days_weekdays_and_hours_are_group_keys_that_agree_with_another_clock() {
    use chrono::{Datelike, TimeZone, Timelike};
    let text = job(
        "window_start, day, month, week, date, weekday, hour, minute",
        "SELECT window_start, \
         date_trunc('day', pickup_at AT TIME ZONE 'America/New_York') AS day, \
         date_trunc('month', pickup_at AT TIME ZONE 'America/New_York') AS month, \
         date_trunc('week', pickup_at AT TIME ZONE 'America/New_York') AS week, \
         CAST(pickup_at AT TIME ZONE 'America/New_York' AS date) AS date, \
         extract(dow FROM pickup_at AT TIME ZONE 'America/New_York') AS weekday, \
         extract(hour FROM pickup_at AT TIME ZONE 'America/New_York') AS hour, \
         extract(minute FROM pickup_at AT TIME ZONE 'America/New_York') AS minute, \
         count(*) AS n FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
    );
    let query = planned(&text, &nullable_schema()).unwrap();
    // Two days around each change of the clocks in 2016, every 23 minutes, and the days around New Year.
    let starts = [1_457_741_000_000_i64, 1_478_300_000_000, 1_451_520_000_000];
    let mut expected = std::collections::BTreeMap::new();
    let mut instants = Vec::new();
    for start in starts {
        for step in 0..250 {
            let ms = start + step * 23 * 60_000;
            instants.push(Some(ms));
            let local = new_york(ms);
            let midnight = |date: chrono::NaiveDate| {
                let midnight = date.and_hms_opt(0, 0, 0).unwrap();
                let zone = chrono_tz::America::New_York;
                zone.from_local_datetime(&midnight)
                    .unwrap()
                    .timestamp_millis()
            };
            let date = local.date_naive();
            let monday = date - chrono::Days::new(u64::from(date.weekday().num_days_from_monday()));
            let key = [
                ms.div_euclid(HOUR) * HOUR,
                midnight(date),
                midnight(date.with_day(1).unwrap()),
                midnight(monday),
                (date - chrono::NaiveDate::default()).num_days(),
                i64::from(local.weekday().num_days_from_sunday()),
                i64::from(local.hour()),
                i64::from(local.minute()),
            ];
            *expected.entry(key).or_insert(0) += 1;
        }
    }
    let scanned = query.scan(&[times(&query, &instants)]).unwrap();
    assert!(scanned.dead.is_empty(), "{:?}", scanned.dead);
    let result = super::functions::finish(&query, &scanned.partial);
    let column = |name: &str| -> Vec<i64> {
        let column = result.column_by_name(name).unwrap();
        let column = match column.data_type() {
            DataType::Timestamp(..) => arrow::compute::cast(column, &timestamp()).unwrap(),
            DataType::Date32 => arrow::compute::cast(column, &DataType::Int32).unwrap(),
            _ => Arc::clone(column),
        };
        let column = arrow::compute::cast(&column, &DataType::Int64).unwrap();
        column.as_primitive::<Int64Type>().values().to_vec()
    };
    let names = [
        "window_start",
        "day",
        "month",
        "week",
        "date",
        "weekday",
        "hour",
        "minute",
    ];
    let columns = names.map(column);
    let counts = longs(&result, "n");
    let mut found = std::collections::BTreeMap::new();
    for (row, count) in counts.iter().enumerate() {
        found.insert(std::array::from_fn(|key| columns[key][row]), *count);
    }
    assert_eq!(found, expected);
}

#[test]
fn window_columns_can_be_used_in_expressions() {
    let text = job(
        "window_end, part",
        "SELECT window_end, pickup_at < window_start + INTERVAL '30 minutes' AS part, count(*) AS n, \
         min(pickup_at) AS first FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') \
         WHERE pickup_at >= window_start + INTERVAL '10 minutes' GROUP BY window_end, 2",
    );
    let query = planned(&text, &nullable_schema()).unwrap();
    let minutes = |minutes: i64| Some(minutes * 60_000);
    let batch = times(
        &query,
        &[
            minutes(5),
            minutes(15),
            minutes(25),
            minutes(45),
            minutes(70),
            minutes(119),
        ],
    );
    let scanned = query.scan(&[batch]).unwrap();
    assert_eq!((scanned.filtered, scanned.assigned), (1, 5));
    let result = query
        .finish(
            std::slice::from_ref(&scanned.partial),
            true,
            &mut History::default(),
        )
        .unwrap();
    assert_eq!(
        longs(&result, "window_end"),
        [HOUR, HOUR, 2 * HOUR, 2 * HOUR]
    );
    assert_eq!(longs(&result, "n"), [1, 2, 1, 1]);
    assert_eq!(
        longs(&result, "first"),
        [45 * 60_000, 15 * 60_000, 119 * 60_000, 70 * 60_000]
    );
}

#[test]
fn other_units_of_event_time_fall_into_the_same_windows() {
    let schema = |unit| {
        Arc::new(Schema::new(vec![Field::new(
            "pickup_at",
            DataType::Timestamp(unit, Some("+00:00".into())),
            false,
        )]))
    };
    let text = job(
        "window_start",
        "SELECT window_start, count(*) AS n FROM TUMBLE(trips, pickup_at, '1 second') GROUP BY window_start",
    );
    let micros = planned(&text, &schema(TimeUnit::Microsecond)).unwrap();
    let column =
        TimestampMicrosecondArray::from(vec![-1, 0, 999_999, 1_000_000]).with_timezone("+00:00");
    let batch = RecordBatch::try_new(Arc::clone(&micros.input), vec![Arc::new(column)]).unwrap();
    let result = micros
        .finish(
            &[micros.scan(&[batch]).unwrap().partial],
            true,
            &mut History::default(),
        )
        .unwrap();
    assert_eq!(longs(&result, "window_start"), [-1_000, 0, 1_000]);
    assert_eq!(longs(&result, "n"), [1, 2, 1]);
}

#[test]
fn the_log_s_time_is_a_column_unless_the_values_have_one_of_that_name() {
    let text = job(
        "window_start",
        "SELECT window_start, window_end, count(*) AS n FROM TUMBLE(trips, record_time, INTERVAL '1 hour') \
         GROUP BY window_start",
    )
    .replace("'pickup_at'", "'record_time'");
    let of_the_log = planned(&text, &nullable_schema()).unwrap();
    assert!(of_the_log.reads_record_time && of_the_log.is_by_record_time());
    let column = Field::new("record_time", timestamp(), true);
    assert_eq!(of_the_log.input.field(0).name(), column.name());
    assert_eq!(of_the_log.input.field(0).data_type(), column.data_type());
    assert!(of_the_log.input.field(0).is_nullable());
    let batch = times(&of_the_log, &[Some(0), None, Some(HOUR)]);
    let scanned = of_the_log.scan(&[batch]).unwrap();
    assert_eq!((scanned.kept, scanned.dead.len()), (2, 1));
    let of_the_values = planned(&text, &Arc::new(Schema::new(vec![column]))).unwrap();
    assert!(!of_the_values.reads_record_time && !of_the_values.is_by_record_time());
    // A job does not go from one to the other unnoticed.
    assert_ne!(of_the_log.fingerprint, of_the_values.fingerprint);
    let with_both = |select: &str| {
        let query = format!(
            "SELECT window_start, {select} AS n FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start"
        );
        planned(&job("window_start", &query), &nullable_schema()).unwrap()
    };
    assert!(!with_both("count(*)").reads_record_time);
    let read = with_both("max(record_time)");
    assert!(read.reads_record_time && !read.is_by_record_time());
}
