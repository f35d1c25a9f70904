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

fn finish(query: &Query, partial: &RecordBatch) -> RecordBatch {
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
