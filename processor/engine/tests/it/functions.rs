//! Each function against a computation over the rows that this file does itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use engine::history::History;
use engine::plan::Query;
use proptest::prelude::*;

use super::support::*;

/// A row of the tests' own source.
#[derive(Clone, Debug)]
struct Row {
    at: i64,
    key: i32,
    whole: Option<i64>,
    real: Option<f64>,
    text: Option<String>,
    flag: Option<bool>,
    by: Option<i64>,
}

fn schema() -> SchemaRef {
    let field = |name: &str, data_type| Field::new(name, data_type, true);
    Arc::new(Schema::new(vec![
        Field::new("pickup_at", timestamp(), false),
        Field::new("k", DataType::Int32, false),
        field("whole", DataType::Int64),
        field("real", DataType::Float64),
        field("text", DataType::Utf8),
        field("flag", DataType::Boolean),
        field("t", timestamp()),
    ]))
}

/// A query with one window of a year and the key `k`.
fn over(aggregates: &str) -> Query {
    let query = format!(
        "SELECT window_start, k, {aggregates} FROM TUMBLE(trips, pickup_at, INTERVAL '366 days') \
         GROUP BY window_start, k"
    );
    planned(&job("window_start, k", &query), &schema())
        .unwrap_or_else(|errors| panic!("{aggregates}: {errors:?}"))
}

fn rows(query: &Query, rows: &[Row]) -> RecordBatch {
    let columns = query.input.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "pickup_at" => Arc::new(
                TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.at))
                    .with_timezone("+00:00"),
            ),
            "k" => Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.key))),
            "whole" => Arc::new(rows.iter().map(|row| row.whole).collect::<Int64Array>()),
            "real" => Arc::new(rows.iter().map(|row| row.real).collect::<Float64Array>()),
            "text" => Arc::new(StringArray::from_iter(
                rows.iter().map(|row| row.text.as_deref()),
            )),
            "flag" => Arc::new(rows.iter().map(|row| row.flag).collect::<BooleanArray>()),
            "t" => Arc::new(
                rows.iter()
                    .map(|row| row.by)
                    .collect::<TimestampMillisecondArray>()
                    .with_timezone("+00:00"),
            ),
            other => panic!("no column {other}"),
        }
    });
    RecordBatch::try_new(Arc::clone(&query.input), columns.collect()).unwrap()
}

/// `spread`: how many values each column has, about.
fn some_rows(seed: u64, count: usize, spread: u64) -> Vec<Row> {
    let mut dice = Dice(seed | 1);
    (0..count)
        .map(|_| {
            let mut maybe = |value: &mut dyn FnMut(u64) -> i64| {
                let roll = dice.roll(spread);
                (dice.roll(8) > 0).then(|| value(roll))
            };
            let whole = maybe(&mut |roll| (roll as i64 - 3) * 1_000_003);
            let real =
                maybe(&mut |roll| roll as i64 * 37 % 1_009).map(|value| value as f64 / 7.0 - 20.0);
            let text = maybe(&mut |roll| roll as i64).map(|value| format!("text {value}"));
            let flag = maybe(&mut |roll| roll as i64).map(|value| value % 3 == 0);
            let by = maybe(&mut |roll| roll as i64 - 2);
            Row {
                at: 1_457_827_200_000 + dice.roll(1_000) as i64,
                key: dice.roll(3) as i32,
                whole,
                real,
                text,
                flag,
                by,
            }
        })
        .collect()
}

/// Cuts rows into batches at random, scans them and merges neighbours at random, in the order of the rows: what the log
/// does to them.
fn through_the_log(query: &Query, all: &[Row], dice: &mut Dice, cut: u64) -> RecordBatch {
    let mut partials = Vec::new();
    let mut rest = all;
    while !rest.is_empty() {
        let take = (1 + dice.roll(cut) as usize).min(rest.len());
        let scanned = query.scan(&[rows(query, &rest[..take])]).unwrap();
        assert!(scanned.dead.is_empty(), "{:?}", scanned.dead);
        partials.push(scanned.partial);
        rest = &rest[take..];
    }
    while partials.len() > 1 {
        let take = (1 + dice.roll(5) as usize).min(partials.len());
        let at = dice.roll((partials.len() - take + 1) as u64) as usize;
        let merged = query.merge(&partials[at..at + take]).unwrap();
        partials.splice(at..at + take, [merged]);
    }
    query.merge(&partials).unwrap()
}

pub fn finish(query: &Query, partial: &RecordBatch) -> RecordBatch {
    let history = &mut History::default();
    query
        .finish(std::slice::from_ref(partial), true, history)
        .unwrap()
}

fn groups(all: &[Row]) -> BTreeMap<i32, Vec<&Row>> {
    let mut groups: BTreeMap<i32, Vec<&Row>> = BTreeMap::new();
    for row in all {
        groups.entry(row.key).or_default().push(row);
    }
    groups
}

fn int(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(name).unwrap();
    column.is_valid(row).then(|| match column.data_type() {
        DataType::Int32 => i64::from(column.as_primitive::<Int32Type>().value(row)),
        DataType::Timestamp(..) => column.as_primitive::<TimestampMillisecondType>().value(row),
        _ => column.as_primitive::<Int64Type>().value(row),
    })
}

fn float(batch: &RecordBatch, name: &str, row: usize) -> Option<f64> {
    let column = batch.column_by_name(name).unwrap();
    column
        .is_valid(row)
        .then(|| column.as_primitive::<Float64Type>().value(row))
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name).unwrap();
    column
        .is_valid(row)
        .then(|| column.as_string::<i32>().value(row).to_owned())
}

fn flag(batch: &RecordBatch, name: &str, row: usize) -> Option<bool> {
    let column = batch.column_by_name(name).unwrap();
    column.is_valid(row).then(|| column.as_boolean().value(row))
}

/// The most frequent value; of several the least.
fn most<T: Ord + Clone>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let mut counts: BTreeMap<T, usize> = BTreeMap::new();
    for value in values.flatten() {
        *counts.entry(value).or_default() += 1;
    }
    let best = counts.values().max()?;
    counts
        .iter()
        .find(|(_, count)| *count == best)
        .map(|(value, _)| value.clone())
}

fn first<'a>(rows: &[&'a Row]) -> Option<&'a Row> {
    rows.iter()
        .filter(|row| row.by.is_some())
        .min_by_key(|row| row.by)
        .copied()
}

fn last<'a>(rows: &[&'a Row]) -> Option<&'a Row> {
    rows.iter()
        .filter(|row| row.by.is_some())
        .max_by_key(|row| row.by)
        .copied()
}

const EXACT: &str = "mode(whole) AS m_whole, mode(text) AS m_text, mode(flag) AS m_flag, mode(t) AS m_t,
    mode(whole) FILTER (WHERE flag) AS m_some,
    min_by(whole, t) AS first_whole, max_by(whole, t) AS last_whole, first_by(text, t) AS first_text,
    last_by(flag, t) AS last_flag, max_by(real, text) AS by_text, min_by(t, real) AS by_real,
    max_by(k, t) FILTER (WHERE whole > 0) AS last_k,
    approx_distinct(whole) AS a_whole, approx_distinct(text) AS a_text, approx_distinct(flag) AS a_flag,
    approx_distinct(t) AS a_t, approx_distinct(real) AS a_real,
    count(DISTINCT whole) AS d_whole, count(DISTINCT text) AS d_text, count(DISTINCT real) AS d_real,
    count(DISTINCT flag) AS d_flag, count(DISTINCT t) AS d_t, sum(DISTINCT whole) AS s_whole,
    count(DISTINCT text) FILTER (WHERE flag) AS d_some, sum(DISTINCT k) AS s_k, min(DISTINCT whole) AS least,
    bool_and(flag) AS every, bool_or(flag) AS any";

fn set<T: Ord>(values: impl Iterator<Item = Option<T>>) -> BTreeSet<T> {
    values.flatten().collect()
}

fn check_exact(result: &RecordBatch, all: &[Row]) {
    let expected = groups(all);
    assert_eq!(result.num_rows(), expected.len());
    for (at, (key, rows)) in expected.iter().enumerate() {
        let each = || rows.iter();
        let int = |name| int(result, name, at);
        let text = |name| text(result, name, at);
        let flag = |name| flag(result, name, at);
        assert_eq!(int("k"), Some(i64::from(*key)));
        assert_eq!(int("m_whole"), most(each().map(|row| row.whole)));
        assert_eq!(text("m_text"), most(each().map(|row| row.text.clone())));
        assert_eq!(flag("m_flag"), most(each().map(|row| row.flag)));
        assert_eq!(int("m_t"), most(each().map(|row| row.by)));
        let yes = || each().filter(|row| row.flag == Some(true));
        assert_eq!(int("m_some"), most(yes().map(|row| row.whole)));

        assert_eq!(int("first_whole"), first(rows).and_then(|row| row.whole));
        assert_eq!(int("last_whole"), last(rows).and_then(|row| row.whole));
        assert_eq!(
            text("first_text"),
            first(rows).and_then(|row| row.text.clone())
        );
        assert_eq!(flag("last_flag"), last(rows).and_then(|row| row.flag));
        let by_text = each()
            .filter(|row| row.text.is_some())
            .max_by_key(|row| row.text.clone());
        assert_eq!(
            float(result, "by_text", at),
            by_text.and_then(|row| row.real)
        );
        let by_real = each()
            .filter(|row| row.real.is_some())
            .min_by(|a, b| a.real.unwrap().total_cmp(&b.real.unwrap()));
        assert_eq!(int("by_real"), by_real.and_then(|row| row.by));
        let some: Vec<&Row> = each().filter(|row| row.whole > Some(0)).copied().collect();
        assert_eq!(int("last_k"), last(&some).map(|row| i64::from(row.key)));

        let whole = set(each().map(|row| row.whole));
        let texts = set(each().map(|row| row.text.clone()));
        let reals = set(each().map(|row| row.real.map(f64::to_bits)));
        let flags = set(each().map(|row| row.flag));
        let times = set(each().map(|row| row.by));
        for (names, count) in [
            (["a_whole", "d_whole"], whole.len()),
            (["a_text", "d_text"], texts.len()),
            (["a_real", "d_real"], reals.len()),
            (["a_flag", "d_flag"], flags.len()),
            (["a_t", "d_t"], times.len()),
        ] {
            for name in names {
                assert_eq!(int(name), Some(count as i64), "{name}");
            }
        }
        let sum: i64 = whole.iter().sum();
        assert_eq!(int("s_whole"), (!whole.is_empty()).then_some(sum));
        assert_eq!(
            int("d_some"),
            Some(set(yes().map(|row| row.text.clone())).len() as i64)
        );
        assert_eq!(int("s_k"), Some(i64::from(*key)));
        assert_eq!(int("least"), whole.first().copied());
        assert_eq!(flag("every"), each().filter_map(|row| row.flag).min());
        assert_eq!(flag("any"), each().filter_map(|row| row.flag).max());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn exact_functions_equal_a_fold_over_the_rows(
        seed in any::<u64>(), count in 1_usize..900, spread in 1_u64..400, cut in 1_u64..200
    ) {
        let query = over(EXACT);
        let all = some_rows(seed, count, spread);
        let merged = through_the_log(&query, &all, &mut Dice(seed ^ 0x9E37_79B9 | 1), cut);
        check_exact(&finish(&query, &merged), &all);
        // The same rows in the same order give the same bytes.
        let again = through_the_log(&over(EXACT), &all, &mut Dice(seed ^ 0x9E37_79B9 | 1), cut);
        for (a, b) in merged.columns().iter().zip(again.columns()) {
            prop_assert_eq!(a.to_data(), b.to_data());
        }
    }
}

fn refusal(aggregates: &str) -> (usize, String) {
    let query = format!(
        "SELECT window_start, {aggregates} AS x FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start"
    );
    let text = job("window_start", &query);
    let errors = planned(&text, &schema()).expect_err(&text);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let column = usize::try_from(errors[0].at.column).unwrap();
    (column, errors[0].to_string())
}

#[test]
fn what_has_no_exact_set_or_no_order_is_refused_where_it_stands() {
    // Behind `INSERT INTO out SELECT window_start, `.
    let column = 38;
    for (call, reason) in [
        ("sum(DISTINCT real)", "sum(DISTINCT …) of type Float64"),
        ("avg(DISTINCT whole)", "avg(DISTINCT …)"),
        ("mode(real)", "mode takes"),
        ("min_by(whole, flag)", "min_by takes a value"),
        ("count(DISTINCT whole, text)", "one value"),
    ] {
        let (at, error) = refusal(call);
        assert_eq!(at, column, "{call}: {error}");
        assert!(error.contains(reason), "{call}: {error}");
    }
}

#[test]
fn a_spread_over_one_row_is_null_and_over_more_agrees_with_two_passes() {
    let query = over(
        "stddev(k) AS s, stddev_samp(real) AS sr, stddev_pop(real) AS sp, var_samp(real) AS vr, var_pop(real) AS vp, \
         var_samp(k) AS v",
    );
    for count in [1, 2, 700] {
        let mut all = some_rows(count as u64, count, 300);
        // Far from 0, where a sum of squares would lose everything.
        all.iter_mut()
            .for_each(|row| row.real = row.real.map(|real| real + 1e7));
        let merged = through_the_log(&query, &all, &mut Dice(5), 50);
        let result = finish(&query, &merged);
        for (at, (_, rows)) in groups(&all).iter().enumerate() {
            let single = rows.len() == 1;
            assert_eq!(float(&result, "s", at), (!single).then_some(0.0));
            assert_eq!(float(&result, "v", at), (!single).then_some(0.0));
            let reals: Vec<f64> = rows.iter().filter_map(|row| row.real).collect();
            let count = reals.len() as f64;
            let mean = reals.iter().sum::<f64>() / count;
            let squares: f64 = reals.iter().map(|real| (real - mean).powi(2)).sum();
            let expected = |by: f64| (by > 0.0).then(|| squares / by);
            for (name, expected) in [
                ("vr", expected(count - 1.0)),
                ("vp", expected(count)),
                ("sr", expected(count - 1.0).map(f64::sqrt)),
                ("sp", expected(count).map(f64::sqrt)),
            ] {
                match (float(&result, name, at), expected) {
                    (Some(a), Some(b)) => {
                        assert!((a - b).abs() <= 1e-9 * b.max(1.0), "{name}: {a} {b}")
                    }
                    (a, b) => assert_eq!(a, b, "{name} of {reals:?}"),
                }
            }
        }
    }
}

/// Where a value stands among sorted ones, as a share: from the first to the last place that it could take.
fn ranks(sorted: &[f64], value: f64) -> (f64, f64) {
    let count = (sorted.len() - 1).max(1) as f64;
    let below = sorted.partition_point(|other| *other < value);
    let up_to = sorted.partition_point(|other| *other <= value);
    ((below as f64 - 1.0) / count, up_to as f64 / count)
}

const SHARES: [f64; 7] = [0.0, 0.01, 0.25, 0.5, 0.9, 0.999, 1.0];

fn percentiles() -> Query {
    let mut calls: Vec<String> = SHARES
        .iter()
        .enumerate()
        .map(|(at, share)| format!("approx_percentile_cont(real, {share}) AS p{at}"))
        .collect();
    calls.push("approx_median(real) AS middle".into());
    calls.push("approx_percentile_cont(0.25) WITHIN GROUP (ORDER BY real DESC) AS upper".into());
    calls.push("approx_percentile_cont(whole, 1) FILTER (WHERE flag) AS most".into());
    over(&calls.join(", "))
}

fn check_percentiles(result: &RecordBatch, all: &[Row]) {
    for (at, (_, rows)) in groups(all).iter().enumerate() {
        let mut sorted: Vec<f64> = rows.iter().filter_map(|row| row.real).collect();
        sorted.sort_by(f64::total_cmp);
        let most = rows
            .iter()
            .filter(|row| row.flag == Some(true))
            .filter_map(|row| row.whole)
            .max();
        assert_eq!(float(result, "most", at), most.map(|most| most as f64));
        let mut wanted: Vec<(String, f64)> = SHARES
            .iter()
            .enumerate()
            .map(|(at, share)| (format!("p{at}"), *share))
            .collect();
        wanted.push(("middle".into(), 0.5));
        wanted.push(("upper".into(), 0.75));
        for (name, share) in wanted {
            let value = float(result, &name, at);
            if sorted.is_empty() {
                assert_eq!(value, None);
                continue;
            }
            let value = value.unwrap();
            let place = share * (sorted.len() - 1) as f64;
            if sorted.len() < 250 {
                let (low, high) = (
                    sorted[place.floor() as usize],
                    sorted[place.ceil() as usize],
                );
                let exact = low + (high - low) * place.fract();
                assert!(
                    close(value, exact),
                    "{name} of {}: {value}, not {exact}",
                    sorted.len()
                );
            }
            let (low, high) = ranks(&sorted, value);
            assert!(
                low - 0.01 <= share && share <= high + 0.01,
                "{name} of {}: {value} stands at {low} to {high}",
                sorted.len()
            );
            if share == 0.0 || share == 1.0 {
                assert!(close(value, sorted[place as usize]), "{name}");
            }
        }
    }
}

fn percentiles_hold(seed: u64, count: usize, spread: u64, cut: u64) {
    let query = percentiles();
    let all = some_rows(seed, count, spread);
    let merged = through_the_log(&query, &all, &mut Dice(seed ^ 0x9E37_79B9 | 1), cut);
    check_percentiles(&finish(&query, &merged), &all);
    let again = through_the_log(&query, &all, &mut Dice(seed ^ 0x9E37_79B9 | 1), cut);
    for (a, b) in merged.columns().iter().zip(again.columns()) {
        assert_eq!(a.to_data(), b.to_data());
    }
}

/// Many of few values: what lies between two that are equal was once rounded to less than either.
#[test]
fn a_percentile_among_equal_values_is_that_value() {
    percentiles_hold(1_170_721_419_046_562_998, 2_489, 18, 340);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn percentiles_are_exact_of_few_values_and_near_in_rank_of_many(
        seed in any::<u64>(), count in 1_usize..6_000, spread in 1_u64..20_000, cut in 1_u64..500
    ) {
        percentiles_hold(seed, count, spread, cut);
    }

    #[test]
    fn a_state_that_was_damaged_is_an_error_and_never_a_panic(
        seed in any::<u64>(), damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>()
    ) {
        let query = over(DAMAGED);
        let partial = query.scan(&[rows(&query, &some_rows(seed, 300, 2_000))]).unwrap().partial;
        let states: Vec<usize> = (0..partial.num_columns())
            .filter(|column| *partial.column(*column).data_type() == DataType::Binary)
            .collect();
        prop_assert_eq!(states.len(), DAMAGED.split(',').count());
        for column in states {
            // Cut off anywhere, a state without any value apart, or of another format.
            let damaged = |change: &dyn Fn(&[u8]) -> Vec<u8>| {
                let mut columns = partial.columns().to_vec();
                let bytes = columns[column].as_binary::<i32>();
                columns[column] = Arc::new(BinaryArray::from_iter_values(
                    bytes.iter().flatten().map(change),
                ));
                RecordBatch::try_new(partial.schema(), columns).unwrap()
            };
            for batch in [
                damaged(&|_| Vec::new()),
                damaged(&|bytes| [&[bytes[0] + 1], &bytes[1..]].concat()),
                damaged(&|bytes| [bytes, &[0xff; 11]].concat()),
            ] {
                let error = query.merge(&[batch]).unwrap_err();
                let source = std::error::Error::source(&error).unwrap().to_string();
                prop_assert!(source.contains("state"), "{}", source);
            }
            // Anything else may by chance be a state again.
            let batch = damaged(&|bytes| {
                let mut bytes = bytes.to_vec();
                for (at, byte) in &damage {
                    let at = at.index(bytes.len());
                    bytes[at] ^= byte;
                }
                bytes
            });
            let history = &mut History::default();
            let _ = query.merge(&[batch.clone(), batch.clone()]);
            let _ = query.finish(&[batch], true, history);
            let batch = damaged(&|bytes| bytes[..cut.index(bytes.len())].to_vec());
            let _ = query.finish(&[batch], true, history);
        }
    }
}

const DAMAGED: &str = "mode(whole) AS a, mode(text) AS b, mode(flag) AS c, approx_distinct(whole) AS d,
    approx_distinct(t) AS e, count(DISTINCT text) AS f, count(DISTINCT real) AS g, sum(DISTINCT whole) AS h,
    approx_median(real) AS i, mode(k) AS j, approx_distinct(flag) AS l";

#[test]
fn approx_distinct_is_exact_up_to_512_values_and_near_above() {
    let query = over("approx_distinct(whole) AS n, approx_distinct(text) AS t");
    for (values, most_off) in [(512, 0.0), (513, 0.05), (5_000, 0.05), (100_000, 0.05)] {
        let all: Vec<Row> = (0..values)
            .chain(0..values / 3)
            .map(|value| Row {
                at: 1_457_827_200_000,
                key: 0,
                whole: Some(value * value + 7),
                real: None,
                text: Some(format!("driver-{value}")),
                flag: None,
                by: None,
            })
            .collect();
        let merged = through_the_log(&query, &all, &mut Dice(values as u64), 9_000);
        let state = merged.column(2).as_binary::<i32>().value(0).len();
        assert!(state <= 3_074, "{state}");
        let result = finish(&query, &merged);
        for name in ["n", "t"] {
            let found = int(&result, name, 0).unwrap();
            let off = (found - values).abs() as f64 / values as f64;
            assert!(off <= most_off, "{found}, not {values}");
        }
        // The set alone determines the state: another cut and order give the same bytes.
        let reversed: Vec<Row> = all.iter().rev().cloned().collect();
        let other = through_the_log(&query, &reversed, &mut Dice(77), 700);
        assert_eq!(merged.column(2), other.column(2));
        assert_eq!(merged.column(3), other.column(3));
    }
}

#[test]
fn states_of_few_rows_are_small() {
    let query = over(DAMAGED);
    let partial = query
        .scan(&[rows(&query, &some_rows(3, 1, 5))])
        .unwrap()
        .partial;
    for column in partial.columns() {
        if let Some(states) = column.as_binary_opt::<i32>() {
            assert!(states.value(0).len() <= 32, "{}", states.value(0).len());
        }
    }
}

#[test]
fn values_that_are_no_numbers_stand_at_the_ends() {
    let query = over(
        "approx_percentile_cont(real, 0) AS a, approx_median(real) AS b, approx_percentile_cont(real, 0.75) AS c, \
         approx_percentile_cont(real, 1) AS d, count(DISTINCT real) AS n, approx_distinct(real) AS m, \
         max_by(whole, real) AS w, min_by(whole, real) AS v",
    );
    let reals = [
        f64::NAN,
        0.0,
        f64::INFINITY,
        -f64::NAN,
        f64::NEG_INFINITY,
        -0.0,
        5.0,
    ];
    let all: Vec<Row> = reals
        .iter()
        .enumerate()
        .map(|(at, real)| Row {
            at: 1_457_827_200_000,
            key: 0,
            whole: Some(at as i64),
            real: Some(*real),
            text: None,
            flag: None,
            by: None,
        })
        .collect();
    let result = finish(&query, &through_the_log(&query, &all, &mut Dice(1), 2));
    assert_eq!(float(&result, "a", 0), Some(f64::NEG_INFINITY));
    assert_eq!(float(&result, "b", 0), Some(5.0));
    assert!(float(&result, "c", 0).unwrap().is_nan());
    assert!(float(&result, "d", 0).unwrap().is_nan());
    // NaN, 0, ∞, −∞ and 5: two zeros are one value, and two NaNs.
    assert_eq!(
        (int(&result, "n", 0), int(&result, "m", 0)),
        (Some(5), Some(5))
    );
    // The last NaN and −∞.
    assert_eq!(
        (int(&result, "w", 0), int(&result, "v", 0)),
        (Some(3), Some(4))
    );
}

#[test]
fn of_several_rows_with_one_time_min_by_takes_the_first_and_max_by_the_last() {
    let query = over("min_by(whole, t) AS a, max_by(whole, t) AS b");
    let mut all = some_rows(9, 40, 1);
    for (at, row) in all.iter_mut().enumerate() {
        (row.key, row.whole, row.by) = (0, Some(at as i64), Some(5));
    }
    let result = finish(&query, &through_the_log(&query, &all, &mut Dice(4), 7));
    assert_eq!(
        (int(&result, "a", 0), int(&result, "b", 0)),
        (Some(0), Some(39))
    );
}

#[test]
fn cells_and_places_that_are_none() {
    let query = planned(
        &job(
            "window_start, cell",
            "SELECT window_start, h3_cell(pickup_latitude, pickup_longitude, 9) AS cell, count(*) AS n, \
             count(h3_cell(pickup_latitude + 100, pickup_longitude, 3)) AS off \
             FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start, 2",
        ),
        &trips_schema(),
    )
    .unwrap();
    let mut trips = some_trips(1, 3, 1);
    for (trip, at) in trips.iter_mut().zip([
        [-122.388_903, 37.769_377],
        [-122.388_904, 37.769_378],
        [-200.0, 37.7],
    ]) {
        trip.coordinates[..2].copy_from_slice(&at);
        trip.pickup_ms = 1_457_827_200_000;
    }
    let scanned = query.scan(&[batch(&query, &trips)]).unwrap();
    let result = finish(&query, &scanned.partial);
    // Null comes first.
    assert_eq!(text(&result, "cell", 0), None);
    assert_eq!(text(&result, "cell", 1).unwrap(), "89283082e73ffff");
    assert_eq!(
        (int(&result, "n", 1), int(&result, "off", 1)),
        (Some(2), Some(0))
    );

    for call in [
        "h3_cell(real, real, 16)",
        "h3_cell(real, real, k)",
        "h3_cell(real, real, null)",
    ] {
        let (_, error) = refusal(&format!("count({call})"));
        assert!(error.contains("resolution from 0 to 15"), "{call}: {error}");
    }
    for call in [
        "approx_percentile_cont(real, 1.5)",
        "approx_percentile_cont(real, real)",
    ] {
        let (at, error) = refusal(call);
        assert!(
            at == 38 && error.contains("share from 0 to 1"),
            "{call}: {error}"
        );
    }
}

#[test]
fn functions_of_analysis_have_their_known_values() {
    for (call, value) in [
        ("sin(0.5)", 0.479_425_538_604_203),
        ("atan2(1, -1)", 2.356_194_490_192_345),
        ("power(2, 10)", 1_024.0),
        ("pow(2, 0.5)", std::f64::consts::SQRT_2),
        ("log(1000)", 3.0),
        ("log(2, 8)", 3.0),
        ("log(3, 81)", 4.0),
        ("ln(10)", std::f64::consts::LN_10),
        ("exp(1)", std::f64::consts::E),
        ("cot(1)", 0.642_092_615_934_330_7),
    ] {
        let query = over(&format!("max({call} + 0 * real) AS x, min({call}) AS y"));
        let all = some_rows(8, 50, 9);
        let result = finish(&query, &through_the_log(&query, &all, &mut Dice(3), 20));
        assert!(close(float(&result, "x", 0).unwrap(), value), "{call}");
        assert!(close(float(&result, "y", 0).unwrap(), value), "{call}");
    }
}

/// How fast the aggregates are. Run with `cargo test --release -p engine --test it -- --ignored --nocapture speed_of`.
// A measurement reads the clock; what is measured does not.
#[allow(clippy::disallowed_methods, clippy::disallowed_types)]
#[test]
#[ignore = "a measurement"]
fn speed_of_aggregates() {
    use std::time::Instant;
    let calls = [
        "count(*)",
        "avg(real)",
        "stddev(real)",
        "approx_distinct(whole)",
        "approx_distinct(text)",
        "count(DISTINCT whole)",
        "count(DISTINCT text)",
        "mode(whole)",
        "mode(text)",
        "min_by(whole, t)",
        "min_by(text, t)",
        "approx_median(real)",
        "max(haversine_km(real, real + 10, 40.7, -73.9))",
        "max(h3_cell(real, real, 9))",
    ];
    for (spread, groups) in [(1_000, 3), (1_000, 100_000)] {
        let mut all = some_rows(6, 400_000, spread);
        let mut dice = Dice(12_345);
        all.iter_mut()
            .for_each(|row| row.key = dice.roll(groups) as i32);
        for call in calls {
            let query = over(&format!("{call} AS x"));
            let batches: Vec<_> = all.chunks(8_192).map(|part| rows(&query, part)).collect();
            let start = Instant::now();
            let partials: Vec<_> = batches
                .iter()
                .map(|batch| query.scan(std::slice::from_ref(batch)).unwrap().partial)
                .collect();
            let scan = start.elapsed().as_secs_f64();
            let partial_rows: usize = partials.iter().map(RecordBatch::num_rows).sum();
            let start = Instant::now();
            let merged = query.merge(&partials).unwrap();
            let merge = start.elapsed().as_secs_f64();
            let start = Instant::now();
            let result = finish(&query, &merged);
            println!(
                "{call:>50}, {:>6} groups: scan {:>6.1} ns a row; merge {:>7.1} ns a partial row; finish {:>7.1} ns a group; \
                 {:>7} bytes a group",
                result.num_rows(),
                scan * 1e9 / all.len() as f64,
                merge * 1e9 / partial_rows as f64,
                start.elapsed().as_secs_f64() * 1e9 / result.num_rows() as f64,
                merged.get_array_memory_size() / merged.num_rows()
            );
        }
    }
}
