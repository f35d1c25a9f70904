//! The fold over a random log of partials, against a count over the rows and against itself after a restore.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use engine::fold::{Applied, Fold, FoldError};
use engine::partial::{FORMAT_VERSION, Header};
use engine::plan::Query;
use proptest::prelude::*;

use super::support::*;

const FINGERPRINT: u64 = 42;
const WINDOW_MS: i64 = 1_200_000;
const QUERY: &str = "SELECT window_start, vendor_id, count(*) AS n,
    sum(trip_duration) AS duration, sum(gc_distance) AS total, avg(gc_distance) AS mean,
    max(google_distance) AS longest
FROM TUMBLE(trips, pickup_at, INTERVAL '20 minutes')
GROUP BY window_start, vendor_id";

fn query() -> Arc<Query> {
    Arc::new(planned(&job("window_start, vendor_id", QUERY), &trips_schema()).unwrap())
}

/// One record of the partials topic.
#[derive(Clone)]
struct Record {
    header: Header,
    rows: Option<RecordBatch>,
}

fn header(partition: i32, partitions: i32, start: i64, end: i64) -> Header {
    Header {
        version: FORMAT_VERSION,
        fingerprint: FINGERPRINT,
        topic_id: "a".into(),
        partition,
        partitions,
        start,
        end,
        rows_in: (end - start) as u64,
        filtered: 0,
        dead: 0,
        watermark: None,
        idle: false,
        advance_to: None,
        ended: false,
    }
}

/// The partials of these trips: each partition's rows cut into ranges at random, the partitions interleaved at random,
/// some ranges repeated, idle marks between them, and the end of input behind them.
fn partials(
    query: &Query,
    trips: &[Vec<Trip>],
    out_of_orderness_ms: i64,
    longest: u64,
    dice: &mut Dice,
) -> Vec<Record> {
    let partitions = trips.len() as i32;
    let mut at = vec![0_usize; trips.len()];
    let mut latest: Vec<Option<i64>> = vec![None; trips.len()];
    let mut log: Vec<Record> = Vec::new();
    while at.iter().zip(trips).any(|(at, trips)| *at < trips.len()) {
        let partition = dice.roll(trips.len() as u64) as usize;
        let (from, rows) = (at[partition], &trips[partition]);
        let to = (from + 1 + dice.roll(longest) as usize).min(rows.len());
        let mut header = header(partition as i32, partitions, from as i64, to as i64);
        if from == to {
            // A mark: the partition is read to its end, and may say that it is idle.
            header.idle = dice.roll(2) == 0;
            header.watermark = latest[partition].map(|latest| latest - out_of_orderness_ms);
            log.push(Record { header, rows: None });
            continue;
        }
        let part = &rows[from..to];
        let newest = part.iter().map(|trip| trip.pickup_ms).max();
        latest[partition] = latest[partition].max(newest);
        header.watermark = latest[partition].map(|latest| latest - out_of_orderness_ms);
        let scanned = query.scan(&[batch(query, part)]).unwrap();
        log.push(Record {
            header,
            rows: Some(scanned.partial),
        });
        at[partition] = to;
        if dice.roll(10) == 0 {
            let again = log[dice.roll(log.len() as u64) as usize].clone();
            if again.header.end > again.header.start {
                log.push(again);
            }
        }
    }
    for (partition, rows) in trips.iter().enumerate() {
        let end = rows.len() as i64;
        let mut header = header(partition as i32, partitions, end, end);
        header.ended = true;
        header.watermark = latest[partition].map(|latest| latest - out_of_orderness_ms);
        log.push(Record { header, rows: None });
    }
    log
}

fn apply(fold: &mut Fold, offset: usize, record: &Record) -> Applied {
    fold.apply(offset as i64, &record.header, record.rows.as_ref())
        .unwrap()
}

/// Everything that a record gave, in a form that compares bit for bit.
fn given(query: &Query, applied: &Applied) -> (bool, String, Vec<(i64, i64, RecordBatch)>) {
    let closed = applied
        .closed
        .iter()
        .map(|window| (window.start, window.end, window.finish(query).unwrap()))
        .collect();
    (applied.duplicate, format!("{:?}", applied.late), closed)
}

fn spread(trips: Vec<Trip>, partitions: usize, dice: &mut Dice) -> Vec<Vec<Trip>> {
    let mut spread = vec![Vec::new(); partitions];
    for trip in trips {
        spread[dice.roll(partitions as u64) as usize].push(trip);
    }
    spread
}

fn counted(trips: &[Vec<Trip>]) -> BTreeMap<(i64, i32), (i64, i64)> {
    let mut counts = BTreeMap::new();
    for trip in trips.iter().flatten() {
        let start = trip.pickup_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
        let (n, duration) = counts.entry((start, trip.vendor)).or_insert((0, 0));
        *n += 1;
        *duration += i64::from(trip.duration);
    }
    counts
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also with late rows, idle partitions and repeated ranges.
    #[test]
    fn a_fold_that_was_restored_anywhere_is_the_live_fold_bit_for_bit(
        seed in any::<u64>(), count in 0_usize..300, partitions in 1_usize..4, longest in 1_u64..60,
        disorder in 0_i64..7_200_000, restores in prop::collection::vec(any::<prop::sample::Index>(), 1..4)
    ) {
        let query = query();
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        let log = partials(&query, &trips, disorder, longest, &mut dice);
        let mut live = Fold::new(Arc::clone(&query), FINGERPRINT);
        let whole: Vec<_> = log
            .iter()
            .enumerate()
            .map(|(offset, record)| given(&query, &apply(&mut live, offset, record)))
            .collect();
        for restore in restores {
            let restore = restore.index(log.len() + 1);
            let mut restored = Fold::new(Arc::clone(&query), FINGERPRINT);
            for (offset, record) in log.iter().enumerate() {
                let again = given(&query, &apply(&mut restored, offset, record));
                if offset >= restore {
                    prop_assert_eq!(&again, &whole[offset]);
                }
                // The state is kept by pointer, as a roll-back does: what is folded after it does not change it.
                if offset == restore {
                    let kept = restored.clone();
                    let mut aborted = restored;
                    if let Some(next) = log.get(offset + 1) {
                        apply(&mut aborted, offset + 1, next);
                    }
                    restored = kept;
                }
            }
            prop_assert_eq!(restored.counts(), live.counts());
            prop_assert_eq!(restored.ranges(), live.ranges());
            prop_assert_eq!(restored.watermark().now(), live.watermark().now());
        }
    }

    #[test]
    fn ranges_do_not_matter_while_out_of_orderness_covers_the_disorder(
        seed in any::<u64>(), count in 0_usize..300, partitions in 1_usize..4, longest in 1_u64..60
    ) {
        let query = query();
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        // Rows lie anywhere in two hours, in any order; idle partitions would let the others go on without them.
        let log: Vec<_> = partials(&query, &trips, 7_200_000, longest, &mut dice)
            .into_iter()
            .map(|mut record| { record.header.idle = false; record })
            .collect();
        let mut fold = Fold::new(Arc::clone(&query), FINGERPRINT);
        let mut found = BTreeMap::new();
        for (offset, record) in log.iter().enumerate() {
            let applied = apply(&mut fold, offset, record);
            prop_assert!(applied.late.is_empty());
            for window in &applied.closed {
                let result = window.finish(&query).unwrap();
                let (starts, vendors) = (longs(&result, "window_start"), longs(&result, "vendor_id"));
                let (counts, durations) = (longs(&result, "n"), longs(&result, "duration"));
                for row in 0..result.num_rows() {
                    let key = (starts[row], vendors[row] as i32);
                    prop_assert!(found.insert(key, (counts[row], durations[row])).is_none(), "{key:?} twice");
                }
            }
        }
        prop_assert_eq!(fold.open_count(), 0);
        prop_assert_eq!(found, counted(&trips));
    }

    #[test]
    fn what_is_not_counted_in_its_window_is_late_in_it(
        seed in any::<u64>(), count in 0_usize..300, partitions in 1_usize..4, longest in 1_u64..60,
        disorder in 0_i64..3_600_000
    ) {
        let query = query();
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        let log = partials(&query, &trips, disorder, longest, &mut dice);
        let mut fold = Fold::new(Arc::clone(&query), FINGERPRINT);
        let mut found: BTreeMap<i64, i64> = BTreeMap::new();
        for (offset, record) in log.iter().enumerate() {
            let applied = apply(&mut fold, offset, record);
            for late in &applied.late {
                *found.entry(late.window_start).or_default() += late.rows as i64;
            }
            for window in &applied.closed {
                let result = window.finish(&query).unwrap();
                *found.entry(window.start).or_default() += longs(&result, "n").iter().sum::<i64>();
            }
        }
        let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
        for ((start, _), (n, _)) in counted(&trips) {
            *expected.entry(start).or_default() += n;
        }
        prop_assert_eq!(found, expected);
        let counts = fold.counts();
        prop_assert_eq!(counts.merged + counts.late, count as u64);
    }
}

/// A fold that has taken [0, 10) of partition 0 and [5, 8) of partition 1.
fn begun() -> (Arc<Query>, Fold) {
    let query = query();
    let mut fold = Fold::new(Arc::clone(&query), FINGERPRINT);
    fold.apply(0, &header(0, 2, 0, 10), None).unwrap();
    fold.apply(1, &header(1, 2, 5, 8), None).unwrap();
    (query, fold)
}

#[test]
fn a_range_that_does_not_follow_on_the_last_one_is_refused() {
    for (partition, start, end, expected) in [
        (0, 11, 12, 10), // a gap
        (0, 9, 11, 10),  // straddles what was taken
        (0, 0, 11, 10),
        (1, 0, 9, 8),
        (1, 9, 9, 8),   // a mark is no exception
        (0, 10, 9, 10), // ends before it begins
    ] {
        let (_, mut fold) = begun();
        let error = fold
            .apply(2, &header(partition, 2, start, end), None)
            .unwrap_err();
        assert!(
            matches!(error, FoldError::Gap { partition: p, expected: e, start: s, end: n }
                if (p, e, s, n) == (partition, expected, start, end)),
            "{error}"
        );
        assert!(
            error.to_string().contains(&format!(
                "partition {partition}: the range {start} to {end}"
            )),
            "{error}"
        );
    }
}

#[test]
fn a_range_that_was_taken_is_skipped_and_counted() {
    let (query, mut fold) = begun();
    let rows = query
        .scan(&[batch(&query, &some_trips(1, 5, 1))])
        .unwrap()
        .partial;
    for (partition, start, end) in [(0, 0, 10), (0, 3, 4), (1, 5, 8), (1, 2, 3)] {
        let applied = fold
            .apply(2, &header(partition, 2, start, end), Some(&rows))
            .unwrap();
        assert!(applied.duplicate);
    }
    assert_eq!((fold.counts().duplicates, fold.counts().merged), (4, 0));
    assert_eq!(fold.ranges(), &BTreeMap::from([(0, 10), (1, 8)]));
    let applied = fold.apply(3, &header(0, 2, 10, 15), Some(&rows)).unwrap();
    assert!(!applied.duplicate);
    assert_eq!(fold.counts().merged, 5);
}

#[test]
fn partials_of_another_topic_job_format_or_query_are_refused() {
    let (query, fold) = begun();
    let next = header(0, 2, 10, 11);
    let refused = |header: Header, rows: Option<&RecordBatch>| {
        fold.clone().apply(2, &header, rows).unwrap_err()
    };
    let topic = refused(
        Header {
            topic_id: "b".into(),
            ..next.clone()
        },
        None,
    );
    assert!(
        matches!(&topic, FoldError::TopicId { was, is } if was == "a" && is == "b"),
        "{topic}"
    );
    let fingerprint = refused(
        Header {
            fingerprint: 43,
            ..next.clone()
        },
        None,
    );
    assert!(
        matches!(fingerprint, FoldError::Fingerprint),
        "{fingerprint}"
    );
    let format = refused(
        Header {
            version: FORMAT_VERSION + 1,
            ..next.clone()
        },
        None,
    );
    assert!(
        matches!(format, FoldError::Format { found } if found == FORMAT_VERSION + 1),
        "{format}"
    );
    let rows = query
        .scan(&[batch(&query, &some_trips(1, 5, 1))])
        .unwrap()
        .partial;
    let fewer: Vec<usize> = (1..rows.num_columns()).collect();
    let columns = refused(next, Some(&rows.project(&fewer).unwrap()));
    assert!(matches!(columns, FoldError::Columns), "{columns}");
}
