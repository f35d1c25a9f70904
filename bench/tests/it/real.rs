//! On real servers.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

/// Runs a small benchmark; `None`, and a line that says so, where the servers are not named.
fn bench(arguments: &[&str], rows: u64) -> Option<Value> {
    let (Ok(brokers), Ok(registry)) = (
        std::env::var("HEADWAY_TEST_KAFKA"),
        std::env::var("HEADWAY_TEST_REGISTRY"),
    ) else {
        assert!(
            std::env::var_os("HEADWAY_CI_REAL").is_none(),
            "HEADWAY_CI_REAL is set, and HEADWAY_TEST_KAFKA or HEADWAY_TEST_REGISTRY is not"
        );
        eprintln!("skipped: set HEADWAY_TEST_KAFKA and HEADWAY_TEST_REGISTRY (deploy/local env)");
        return None;
    };
    let entries: Vec<_> = brokers
        .split(',')
        .filter_map(|e| e.split_once('='))
        .collect();
    let kafka4 = entries.iter().find(|(name, _)| *name == "kafka4");
    let address = kafka4.or(entries.first()).unwrap().1;
    // A seed of its own: an earlier run's topic may have been left half full, and another test is loading its own now.
    static TOPICS: AtomicU32 = AtomicU32::new(0);
    let number = u64::from(TOPICS.fetch_add(1, Ordering::Relaxed));
    let seed = (u64::from(std::process::id()) * 16 + number).to_string();
    let rows = rows.to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_bench"))
        .args(arguments)
        .args(["--brokers", address, "--registry", &registry])
        .args(["--rows", &rows, "--runs", "1", "--seed", &seed, "--json"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "seed {seed}: {said}");
    Some(serde_json::from_slice(&output.stdout).unwrap())
}

fn each_contestant_costs_something(report: &Value) {
    for median in report["medians"].as_array().unwrap() {
        assert!(median["cpu_s"].as_f64().unwrap() > 0.0, "{report:#}");
        assert!(median["rows_per_s"].as_f64().unwrap() > 0.0, "{report:#}");
    }
    let medians = report["medians"].as_array().unwrap();
    let ratios = report["ratios"].as_array().unwrap();
    assert_eq!(ratios.len(), medians.len() - 1, "{report:#}");
    assert_eq!(report["checks"].as_array().unwrap().len(), 1, "{report:#}");
}

#[test]
fn the_processor_is_measured_and_its_results_are_right() {
    if let Some(report) = bench(&["processor"], 20_000) {
        each_contestant_costs_something(&report);
    }
}

#[test]
fn the_producer_is_measured_and_its_records_are_all_there() {
    if let Some(report) = bench(&["producer"], 20_000) {
        each_contestant_costs_something(&report);
    }
}

#[test]
fn a_group_for_each_row_is_measured_and_its_results_are_right() {
    if let Some(report) = bench(&["processor", "--groups", "many"], 20_000) {
        each_contestant_costs_something(&report);
        let checks = report["checks"].to_string();
        assert!(checks.contains("20000 results"), "{checks}");
    }
}

fn median_of(report: &Value, place: usize) -> f64 {
    report["delays"][place]["median_s"].as_f64().unwrap()
}

#[test]
fn a_processor_that_was_killed_or_stopped_is_measured_until_it_is_ready_and_has_its_state_again() {
    if let Some(report) = bench(&["restart"], 5_000) {
        for place in [0, 2] {
            // Ready, and of that what its group took.
            let (ready, joined) = (median_of(&report, place), median_of(&report, place + 1));
            assert!(0.0 < joined && joined <= ready, "{report:#}");
        }
        // One application through all of its ends: what it gives last stands for each of them.
        let checks = report["checks"].as_array().unwrap();
        assert_eq!(checks.len(), 1, "{report:#}");
        let check = checks[0].as_str().unwrap();
        assert!(check.contains("5000 groups; audit balanced"), "{check}");
    }
}

#[test]
fn the_lag_of_results_is_measured_and_each_is_right_and_there_once() {
    if let Some(report) = bench(&["lag"], 20_000) {
        let windows = report["delays"][0]["count"].as_u64().unwrap();
        // 20,000 trips are most of a day, and a window is an hour.
        assert!(windows >= 5, "{report:#}");
        for delay in report["delays"].as_array().unwrap() {
            assert_eq!(delay["count"].as_u64().unwrap(), windows, "{report:#}");
        }
        // What is read was sent before, and what is sent was closed before.
        assert!(median_of(&report, 0) > 0.0, "{report:#}");
        let check = report["checks"][0].as_str().unwrap();
        assert!(check.contains("audit balanced"), "{check}");
    }
}

#[test]
#[ignore = "needs Maven and the peers' packages, some hundred MiB"]
fn the_peers_have_the_results_of_the_processor() {
    for groups in ["few", "many"] {
        let peers = ["--against", "kafka-streams", "--against", "flink-sql"];
        let arguments = [&["processor", "--groups", groups], &peers[..]].concat();
        if let Some(report) = bench(&arguments, 20_000) {
            each_contestant_costs_something(&report);
            assert_eq!(report["ratios"].as_array().unwrap().len(), 3, "{report:#}");
        }
    }
}
