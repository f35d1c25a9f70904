//! The fold over a random log of partials, against a count over the rows and against itself after a restore.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use engine::fold::{Applied, ClosedWindow, Fold, FoldError, Handover, Image, ImageError, ImageRun};
use engine::partial::{FORMAT_VERSION, Header};
use engine::plan::Query;
use engine::spill::InMemory;
use proptest::prelude::*;

use super::support::*;

const FINGERPRINT: u64 = 42;
const AGGREGATES: &str = "count(*) AS n, sum(trip_duration) AS duration, sum(gc_distance) AS total,
    avg(gc_distance) AS mean, max(google_distance) AS longest";

/// Each kind of window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Session,
    Unbounded,
}

const MINUTE: i64 = 60_000;
const KINDS: [Kind; 4] = [Kind::Tumble, Kind::Hop, Kind::Session, Kind::Unbounded];

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(&KINDS[..])
}

fn windows() -> impl Strategy<Value = Kind> {
    prop::sample::select(&KINDS[..3])
}

impl Kind {
    fn query(self, emit: &str) -> Arc<Query> {
        let text = self.text(emit);
        Arc::new(planned(&text, &trips_schema()).unwrap_or_else(|errors| panic!("{errors:?}")))
    }

    fn text(self, emit: &str) -> String {
        let (key, from) = match self {
            Self::Tumble => (
                "window_start, vendor_id",
                "TUMBLE(trips, pickup_at, INTERVAL '20 minutes')",
            ),
            Self::Hop => (
                "window_start, vendor_id",
                "HOP(trips, pickup_at, INTERVAL '10 minutes', INTERVAL '25 minutes')",
            ),
            Self::Session => (
                "window_start, vendor_id",
                "SESSION(trips, pickup_at, INTERVAL '2 minutes')",
            ),
            Self::Unbounded => ("vendor_id", "trips"),
        };
        format!(
            "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');
             CREATE SINK out WITH (topic = 'out', key = '{key}', emit = '{emit}');
             INSERT INTO out SELECT {key}, {AGGREGATES} FROM {from} GROUP BY {key}"
        )
    }

    /// With scores, which remember what earlier windows were like.
    fn scored_query(self) -> Arc<Query> {
        let text = self.text("final").replace(
            "avg(gc_distance) AS mean",
            "avg(gc_distance) AS mean, anomaly_score(count(*)) AS odd, anomaly_score(sum(gc_distance)) AS far",
        );
        Arc::new(planned(&text, &trips_schema()).unwrap_or_else(|errors| panic!("{errors:?}")))
    }

    fn any_query(self) -> Arc<Query> {
        self.query(if self == Self::Unbounded {
            "changes"
        } else {
            "final"
        })
    }

    /// The starts of the windows of each row, by vendor, found by looking at all rows.
    fn counted(self, trips: &[Vec<Trip>]) -> BTreeMap<(i64, i32), (i64, i64)> {
        let mut counts: BTreeMap<(i64, i32), (i64, i64)> = BTreeMap::new();
        let mut count = |start: i64, trip: &Trip| {
            let (n, duration) = counts.entry((start, trip.vendor)).or_default();
            *n += 1;
            *duration += i64::from(trip.duration);
        };
        let mut trips: Vec<&Trip> = trips.iter().flatten().collect();
        match self {
            Self::Tumble => {
                for trip in trips {
                    count(trip.pickup_ms.div_euclid(20 * MINUTE) * 20 * MINUTE, trip);
                }
            }
            Self::Hop => {
                for trip in trips {
                    let latest = trip.pickup_ms.div_euclid(10 * MINUTE) * 10 * MINUTE;
                    for start in (0..4).map(|back| latest - back * 10 * MINUTE) {
                        if trip.pickup_ms < start + 25 * MINUTE {
                            count(start, trip);
                        }
                    }
                }
            }
            Self::Session => {
                trips.sort_by_key(|trip| (trip.vendor, trip.pickup_ms));
                let mut last: Option<(i32, i64, i64)> = None;
                for trip in trips {
                    let start = match last {
                        Some((vendor, start, time))
                            if vendor == trip.vendor && trip.pickup_ms - time < 2 * MINUTE =>
                        {
                            start
                        }
                        _ => trip.pickup_ms,
                    };
                    count(start, trip);
                    last = Some((trip.vendor, start, trip.pickup_ms));
                }
            }
            Self::Unbounded => trips.into_iter().for_each(|trip| count(0, trip)),
        }
        counts
    }
}

fn query() -> Arc<Query> {
    Kind::Tumble.query("final")
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
fn given(fold: &mut Fold, applied: &Applied) -> (bool, String, Vec<(i64, i64, RecordBatch)>) {
    let closed = applied
        .closed
        .iter()
        .map(|window| (window.start, window.end, fold.results(window).unwrap()))
        .collect();
    (applied.duplicate, format!("{:?}", applied.late), closed)
}

/// Window start (0 without windows) and vendor; count and sum of durations; version.
type ResultRow = ((i64, i32), (i64, i64), i64);

fn results(batch: &RecordBatch) -> Vec<ResultRow> {
    let starts = match batch.column_by_name("window_start") {
        Some(_) => longs(batch, "window_start"),
        None => vec![0; batch.num_rows()],
    };
    let vendors = longs(batch, "vendor_id");
    let (counts, durations) = (longs(batch, "n"), longs(batch, "duration"));
    let versions = longs(batch, "version");
    (0..batch.num_rows())
        .map(|row| {
            (
                (starts[row], vendors[row] as i32),
                (counts[row], durations[row]),
                versions[row],
            )
        })
        .collect()
}

fn spread(trips: Vec<Trip>, partitions: usize, dice: &mut Dice) -> Vec<Vec<Trip>> {
    let mut spread = vec![Vec::new(); partitions];
    for trip in trips {
        spread[dice.roll(partitions as u64) as usize].push(trip);
    }
    spread
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also with late rows, idle partitions and repeated ranges.
    #[test]
    fn a_fold_that_was_restored_anywhere_is_the_live_fold_bit_for_bit(
        kind in kinds(), seed in any::<u64>(), count in 0_usize..300, partitions in 1_usize..4,
        longest in 1_u64..60, disorder in 0_i64..7_200_000,
        restores in prop::collection::vec(any::<prop::sample::Index>(), 1..4)
    ) {
        let query = kind.any_query();
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        let log = partials(&query, &trips, disorder, longest, &mut dice);
        let mut live = Fold::new(Arc::clone(&query), FINGERPRINT);
        let mut whole = Vec::new();
        for (offset, record) in log.iter().enumerate() {
            let applied = apply(&mut live, offset, record);
            let given = given(&mut live, &applied);
            whole.push((given, live.changes().unwrap()));
        }
        for restore in restores {
            let restore = restore.index(log.len() + 1);
            let mut restored = Fold::new(Arc::clone(&query), FINGERPRINT);
            for (offset, record) in log.iter().enumerate() {
                let applied = apply(&mut restored, offset, record);
                if offset < restore {
                    restored.forget_changes();
                } else {
                    let again = given(&mut restored, &applied);
                    prop_assert_eq!(&(again, restored.changes().unwrap()), &whole[offset]);
                }
                // The state is kept by pointer, as a roll-back does: what is folded after it does not change it.
                if offset == restore {
                    let kept = restored.clone();
                    let mut aborted = restored;
                    if let Some(next) = log.get(offset + 1) {
                        apply(&mut aborted, offset + 1, next);
                    }
                    // So does an image of it.
                    restored = match dice.roll(2) {
                        0 => kept,
                        _ => Fold::restore(Arc::clone(&query), FINGERPRINT, kept.image(), Arc::new(InMemory)).unwrap(),
                    };
                }
            }
            prop_assert_eq!(restored.counts(), live.counts());
            prop_assert_eq!(restored.ranges(), live.ranges());
            prop_assert_eq!(restored.watermark().now(), live.watermark().now());
            prop_assert_eq!(restored.open_windows(), live.open_windows());
        }
    }

    /// Windows that are given many at a time give what they give one by one, scores, first rows and versions too.
    #[test]
    fn windows_given_together_are_those_given_one_by_one_bit_for_bit(
        kind in windows(), select in 0_u64..3, seed in any::<u64>(), count in 0_usize..300, partitions in 1_usize..4,
        longest in 1_u64..60, disorder in 0_i64..7_200_000, most in 1_usize..60, blocks in 1_usize..40
    ) {
        let query = match (select, kind) {
            (0, _) => kind.query("final"),
            (1, _) | (_, Kind::Session | Kind::Unbounded) => kind.scored_query(),
            _ => {
                let text = format!("{} ORDER BY total DESC LIMIT 1", kind.text("final"));
                Arc::new(planned(&text, &trips_schema()).unwrap_or_else(|errors| panic!("{errors:?}")))
            }
        };
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        let log = partials(&query, &trips, disorder, longest, &mut dice);
        let mut one = Fold::new(Arc::clone(&query), FINGERPRINT).with_block_rows(blocks);
        let mut several = one.clone();
        for (offset, record) in log.iter().enumerate() {
            let mut expected = vec![];
            for closed in &apply(&mut one, offset, record).closed {
                expected.push(one.results(closed).unwrap());
            }
            let closed = apply(&mut several, offset, record).closed;
            let mut rest = &closed[..];
            let mut found = vec![];
            while !rest.is_empty() {
                let together = several.together(rest, most);
                prop_assert!(together <= rest.len());
                let (first, behind) = rest.split_at(together.max(1));
                found.push(match together {
                    0 => several.results(&first[0]).unwrap(),
                    _ => several.results_together(first).unwrap(),
                });
                rest = behind;
            }
            let whole = |parts: &[RecordBatch]| concat_batches(&query.output, parts).unwrap();
            prop_assert_eq!(whole(&found), whole(&expected));
        }
    }

    /// What a fold gives after any number of restores from images, in which nothing but a fold's batches goes on, and whose
    /// batches are those of the live fold by number.
    #[test]
    fn a_fold_drawn_and_restored_again_and_again_is_the_live_fold_bit_for_bit(
        kind in kinds(), scored in any::<bool>(), seed in any::<u64>(), count in 0_usize..300,
        partitions in 1_usize..4, longest in 1_u64..20, disorder in 0_i64..7_200_000, every in 1_u64..20, blocks in 1_usize..40
    ) {
        let query = if scored && kind != Kind::Unbounded { kind.scored_query() } else { kind.any_query() };
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        let log = partials(&query, &trips, disorder, longest, &mut dice);
        let mut live = Fold::new(Arc::clone(&query), FINGERPRINT).with_block_rows(blocks);
        let mut restored = live.clone();
        for (offset, record) in log.iter().enumerate() {
            let applied = apply(&mut live, offset, record);
            let expected = (given(&mut live, &applied), live.changes().unwrap());
            let applied = apply(&mut restored, offset, record);
            let found = (given(&mut restored, &applied), restored.changes().unwrap());
            prop_assert_eq!(found, expected);
            if dice.roll(every) == 0 {
                let (image, same) = (restored.image(), live.image());
                prop_assert_eq!(&image.head, &same.head);
                prop_assert_eq!(&image.history, &same.history);
                let kept = |image: &Image| -> Vec<_> {
                    let mut runs: Vec<_> = image
                        .runs
                        .iter()
                        .map(|run| (run.block.number, run.place, run.live.clone(), run.block.load().unwrap()))
                        .collect();
                    runs.sort_by_key(|run| run.0);
                    runs
                };
                prop_assert_eq!(kept(&image), kept(&same));
                restored = Fold::restore(Arc::clone(&query), FINGERPRINT, image, Arc::new(InMemory)).unwrap();
                prop_assert_eq!(restored.held_rows(), live.held_rows());
                prop_assert_eq!(restored.open_count(), live.open_count());
            }
        }
        prop_assert_eq!(restored.open_windows(), live.open_windows());
    }

    #[test]
    fn ranges_do_not_matter_while_out_of_orderness_covers_the_disorder(
        kind in windows(), seed in any::<u64>(), count in 0_usize..300, partitions in 1_usize..4,
        longest in 1_u64..60, blocks in 1_usize..40
    ) {
        let query = kind.any_query();
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        // Rows lie anywhere in two hours, in any order; idle partitions would let the others go on without them.
        let log: Vec<_> = partials(&query, &trips, 7_200_000, longest, &mut dice)
            .into_iter()
            .map(|mut record| { record.header.idle = false; record })
            .collect();
        let mut fold = Fold::new(Arc::clone(&query), FINGERPRINT).with_block_rows(blocks);
        let mut found = BTreeMap::new();
        for (offset, record) in log.iter().enumerate() {
            let applied = apply(&mut fold, offset, record);
            prop_assert!(applied.late.is_empty());
            for window in &applied.closed {
                for (key, values, _) in results(&fold.results(window).unwrap()) {
                    prop_assert!(found.insert(key, values).is_none(), "{key:?} twice");
                }
            }
        }
        prop_assert_eq!(fold.open_count(), 0);
        prop_assert_eq!(&found, &kind.counted(&trips));
        let pairs: i64 = found.values().map(|(n, _)| n).sum();
        prop_assert_eq!(fold.counts().merged, pairs as u64);
    }

    /// One fold gives what ends at D or before, and another what ends later, with versions above: together all, each once.
    #[test]
    fn a_fold_that_goes_on_for_another_gives_the_rest(
        kind in windows(), seed in any::<u64>(), count in 0_usize..300, partitions in 1_usize..4,
        longest in 1_u64..60, disorder in 0_i64..7_200_000, at in 0_i64..140
    ) {
        let query = kind.any_query();
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        let log = partials(&query, &trips, disorder, longest, &mut dice);
        let earliest = trips.iter().flatten().map(|trip| trip.pickup_ms).min().unwrap_or(0);
        let handover = Handover { given_to: earliest + at * MINUTE, versions_from: 1_000_000 };
        let mut whole = Fold::new(Arc::clone(&query), FINGERPRINT);
        let mut rest = whole.clone();
        rest.go_on_from(handover);
        let all = |fold: &mut Fold, windows: &[ClosedWindow]| -> Vec<ResultRow> {
            windows.iter().flat_map(|window| results(&fold.results(window).unwrap())).collect()
        };
        for (offset, record) in log.iter().enumerate() {
            let closes = whole.would_close_to(&record.header);
            let applied = apply(&mut whole, offset, record);
            if !applied.duplicate {
                prop_assert_eq!(whole.closes_to(), closes);
            }
            let split = apply(&mut rest, offset, record);
            prop_assert!(split.given_before.iter().all(|window| window.end <= handover.given_to));
            prop_assert!(split.closed.iter().all(|window| window.end > handover.given_to));
            let before = all(&mut rest, &split.given_before);
            let pairs = split.given_before.iter().map(|window| rest.pairs_of(window).unwrap()).sum::<u64>();
            prop_assert_eq!(pairs as i64, before.iter().map(|(_, (n, _), _)| n).sum::<i64>());
            let mut found: Vec<_> = before.into_iter().chain(all(&mut rest, &split.closed)).collect();
            let mut expected = all(&mut whole, &applied.closed);
            expected.iter_mut().for_each(|(.., version)| *version += handover.versions_from);
            found.sort();
            expected.sort();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(whole.counts(), rest.counts());
        }
        prop_assert_eq!(whole.image().head, rest.image().head);
    }

    /// All that is open is told, but nothing of windows that another one has given.
    #[test]
    fn a_fold_that_goes_on_for_another_tells_what_is_open(
        hopping in any::<bool>(), seed in any::<u64>(), count in 1_usize..300, longest in 1_u64..60, at in 0_i64..140
    ) {
        let (query, size) = match hopping {
            true => (Kind::Hop.query("changes"), 25 * MINUTE),
            false => (Kind::Tumble.query("changes"), 20 * MINUTE),
        };
        let trips = vec![some_trips(seed, count, 2)];
        let mut dice = Dice(seed | 1);
        let mut log = partials(&query, &trips, 7_200_000, longest, &mut dice);
        log.pop();
        let mut fold = Fold::new(Arc::clone(&query), FINGERPRINT);
        for (offset, record) in log.iter().enumerate() {
            apply(&mut fold, offset, record);
            fold.forget_changes();
        }
        let earliest = trips[0].iter().map(|trip| trip.pickup_ms).min().unwrap();
        let given_to = earliest + at * MINUTE;
        fold.go_on_from(Handover { given_to, versions_from: 1_000_000 });
        fold.all_changed();
        let kind = if hopping { Kind::Hop } else { Kind::Tumble };
        let open = fold.open_windows();
        let expected: BTreeMap<_, _> = kind
            .counted(&trips)
            .into_iter()
            .filter(|((start, _), _)| start + size > given_to && open.iter().any(|window| window.start == *start))
            .collect();
        let told = fold.changes().unwrap().map(|rows| results(&rows)).unwrap_or_default();
        prop_assert!(told.iter().all(|(.., version)| *version >= 1_000_000));
        let told: BTreeMap<_, _> = told.into_iter().map(|(key, values, _)| (key, values)).collect();
        prop_assert_eq!(told, expected);
    }

    #[test]
    fn what_is_not_counted_in_its_window_is_late_in_it(
        kind in windows(), seed in any::<u64>(), count in 0_usize..300, partitions in 1_usize..4,
        longest in 1_u64..60, disorder in 0_i64..3_600_000
    ) {
        let query = kind.any_query();
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        let log = partials(&query, &trips, disorder, longest, &mut dice);
        let mut fold = Fold::new(Arc::clone(&query), FINGERPRINT);
        // Lateness can split a session, so that only their rows as a whole are known.
        let start = |start: i64| if kind == Kind::Session { 0 } else { start };
        let mut found: BTreeMap<i64, i64> = BTreeMap::new();
        let mut keys = std::collections::BTreeSet::new();
        for (offset, record) in log.iter().enumerate() {
            let applied = apply(&mut fold, offset, record);
            for late in &applied.late {
                *found.entry(start(late.window_start)).or_default() += late.rows as i64;
            }
            for window in &applied.closed {
                for (key, (n, _), _) in results(&fold.results(window).unwrap()) {
                    *found.entry(start(key.0)).or_default() += n;
                    prop_assert!(keys.insert(key), "{key:?} twice");
                }
            }
        }
        let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
        for ((window, _), (n, _)) in kind.counted(&trips) {
            *expected.entry(start(window)).or_default() += n;
        }
        prop_assert_eq!(found, expected);
        let scanned: u64 = trips
            .iter()
            .map(|trips| query.scan(&[batch(&query, trips)]).unwrap().assigned)
            .sum();
        let counts = fold.counts();
        prop_assert_eq!(counts.merged + counts.late, scanned);
    }

    #[test]
    fn changes_name_what_was_touched_and_lead_to_the_result(
        kind in prop::sample::select(&[Kind::Tumble, Kind::Hop, Kind::Unbounded][..]), seed in any::<u64>(),
        count in 0_usize..300, partitions in 1_usize..4, longest in 1_u64..60, commit in 1_u64..6
    ) {
        let query = kind.query("changes");
        let mut dice = Dice(seed | 1);
        let trips = spread(some_trips(seed, count, 2), partitions, &mut dice);
        let log: Vec<_> = partials(&query, &trips, 7_200_000, longest, &mut dice)
            .into_iter()
            .map(|mut record| { record.header.idle = false; record })
            .collect();
        let mut fold = Fold::new(Arc::clone(&query), FINGERPRINT);
        let mut last: BTreeMap<(i64, i32), ((i64, i64), i64)> = BTreeMap::new();
        // What each window holds of the ranges so far, from the rows themselves.
        let mut known = BTreeMap::new();
        let mut taken = vec![Vec::new(); partitions];
        for (offset, record) in log.iter().enumerate() {
            let applied = apply(&mut fold, offset, record);
            let mut said = Vec::new();
            for window in &applied.closed {
                said.extend(results(&fold.results(window).unwrap()));
            }
            if !applied.duplicate {
                let partition = record.header.partition as usize;
                let range = record.header.start as usize..record.header.end as usize;
                taken[partition].extend_from_slice(&trips[partition][range]);
            }
            if dice.roll(commit) == 0
                && let Some(changes) = fold.changes().unwrap()
            {
                let now = kind.counted(&taken);
                let changes = results(&changes);
                let changed: BTreeMap<_, _> = changes.iter().map(|(key, values, _)| (*key, *values)).collect();
                let differ: BTreeMap<_, _> = now
                    .iter()
                    .filter(|(key, values)| known.get(*key) != Some(*values))
                    .map(|(key, values)| (*key, *values))
                    .collect();
                prop_assert_eq!(changed.len(), changes.len());
                prop_assert_eq!(changed, differ);
                known = now;
                said.extend(changes);
            }
            for (key, values, version) in said {
                let before = last.insert(key, (values, version));
                prop_assert!(before.is_none_or(|(_, before)| before < version), "{key:?} goes back");
            }
        }
        if let Some(changes) = fold.changes().unwrap() {
            for (key, values, version) in results(&changes) {
                last.insert(key, (values, version));
            }
        }
        let last: BTreeMap<_, _> = last.into_iter().map(|(key, (values, _))| (key, values)).collect();
        prop_assert_eq!(last, kind.counted(&trips));
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

/// An image of a fold that has taken some trips.
fn drawn(kind: Kind) -> (Arc<Query>, Image) {
    let query = kind.any_query();
    let mut fold = Fold::new(Arc::clone(&query), FINGERPRINT);
    for (offset, seed) in (0..20).zip(1..) {
        let rows = query
            .scan(&[batch(&query, &some_trips(seed, 5, 1))])
            .unwrap()
            .partial;
        let header = header(0, 1, offset * 5, offset * 5 + 5);
        fold.apply(offset, &header, Some(&rows)).unwrap();
    }
    (query, fold.image())
}

/// The same batch of an image with another number or other rows.
fn again(
    query: &Query,
    run: &ImageRun,
    number: u64,
    rows: &RecordBatch,
) -> Result<ImageRun, ImageError> {
    let parts = (run.part, run.parts);
    ImageRun::read(
        query,
        number,
        run.place,
        parts,
        run.live.clone(),
        rows,
        &InMemory,
    )
}

#[test]
fn an_image_that_is_not_of_this_fold_or_contradicts_itself_is_refused() {
    for kind in KINDS {
        let (query, image) = drawn(kind);
        assert!(image.runs.len() > 1, "{kind:?}");
        let restore = |image: Image| {
            Fold::restore(Arc::clone(&query), FINGERPRINT, image, Arc::new(InMemory))
        };
        assert!(restore(image.clone()).is_ok());
        let refused = |change: &dyn Fn(&mut Image)| {
            let mut image = image.clone();
            change(&mut image);
            restore(image).err()
        };
        let format = refused(&|image| image.head.version += 1);
        assert!(
            matches!(format, Some(ImageError::Format { .. })),
            "{format:?}"
        );
        let job = refused(&|image| image.head.fingerprint += 1);
        assert!(matches!(job, Some(ImageError::Fingerprint)), "{job:?}");
        let run = &image.runs[0];
        let rows = run.block.load().unwrap();
        let fewer: Vec<usize> = (1..rows.num_columns()).collect();
        let columns = again(&query, run, 0, &rows.project(&fewer).unwrap()).err();
        assert!(matches!(columns, Some(ImageError::Columns)), "{columns:?}");
        let twice = refused(&|image| {
            let rows = image.runs[1].block.load().unwrap();
            image.runs[1] =
                again(&query, &image.runs[1], image.runs[0].block.number, &rows).unwrap();
        });
        assert!(matches!(twice, Some(ImageError::Run { .. })), "{twice:?}");
        let future = refused(&|image| {
            let rows = image.runs[0].block.load().unwrap();
            image.runs[0] = again(&query, &image.runs[0], image.head.next_run, &rows).unwrap();
        });
        assert!(matches!(future, Some(ImageError::Run { .. })), "{future:?}");
        let history = refused(&|image| image.history = Some(image.runs[0].block.load().unwrap()));
        assert!(matches!(history, Some(ImageError::Columns)), "{history:?}");
        let mut elsewhere = run.clone();
        elsewhere.place += MINUTE;
        let astray = again(&query, &elsewhere, 0, &rows).err();
        assert!(matches!(astray, Some(ImageError::Run { .. })), "{astray:?}");
        let part = refused(&|image| image.runs[0].parts = 2);
        assert!(matches!(part, Some(ImageError::Run { .. })), "{part:?}");
    }
}
