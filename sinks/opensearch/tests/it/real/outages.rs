//! A server that refuses, breaks off, answers after it has stored, goes away for a while.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sink_opensearch::{BulkOptions, BulkTarget, Credentials, SinkError, Target, TargetError, run};

use super::proxy::{Fault, Proxy};
use super::{Server, world};
use crate::support::{eventually, start};

#[test]
fn failures_of_all_kinds_lose_and_double_nothing() {
    let Some(server) = Server::find("outages::kinds") else {
        return;
    };
    server.set_up();
    let (_folder, world) = world(1_500, true);
    let faults = [
        Fault::BreakAfter,
        Fault::Refuse(503),
        Fault::Half(429),
        Fault::None,
        Fault::BreakBefore,
        Fault::Refuse(429),
        Fault::Half(503),
        Fault::TooLarge(8),
        Fault::None,
        Fault::Refuse(500),
    ];
    let proxy = Proxy::before(&server.url, move |number| faults[number % faults.len()]);
    let mut options = server.options(&world, server.target_at(&proxy.url()));
    options.pacing.max_bulk_bytes = 16 << 10;
    options.pacing.min_bulk_bytes = 2 << 10;
    let metrics = options.metrics.clone();
    run(options).unwrap();
    assert!(proxy.bulks() > 20, "{}", proxy.bulks());
    assert!(metrics.failed_calls.get() > 5);
    assert!(metrics.retried.with_label_values(&["overloaded"]).get() > 0);
    assert!(metrics.retried.with_label_values(&["failed"]).get() > 0);
    server.check(&world, "faults");
}

#[test]
fn only_what_failed_is_sent_again() {
    let Some(server) = Server::find("outages::items") else {
        return;
    };
    server.set_up();
    let (_folder, world) = world(64, false);
    let proxy = Proxy::before(&server.url, |number| match number {
        0 | 1 => Fault::Half(429),
        _ => Fault::None,
    });
    let mut options = server.options(&world, server.target_at(&proxy.url()));
    options.flush_interval = Duration::from_secs(60);
    run(options).unwrap();
    assert_eq!(proxy.sizes(), [64, 32, 16]);
    server.check(&world, "only what failed");
}

#[test]
fn an_outage_is_waited_out_within_the_bounds_of_memory() {
    let Some(server) = Server::find("outages::long") else {
        return;
    };
    server.set_up();
    let (_folder, mut world) = world(100, true);
    let proxy = Proxy::before(&server.url, |_| Fault::None);
    let mut options = world.options(world.log.clone(), server.target_at(&proxy.url()));
    options.topics = vec![server.settings()];
    options.flush_bytes = 64 << 10;
    // Nothing but the outage is to be seen, however busy the machine is.
    options.consumer.session_timeout = Duration::from_secs(60);
    let (metrics, progress) = (options.metrics.clone(), options.progress.clone());
    let (lifecycle, running) = start(options);
    eventually("the first documents are stored", || {
        progress.snapshot().stored > 0
    });
    proxy.down(true);
    world.write(20_000, true);
    eventually("reading is paused", || progress.paused());
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert!(metrics.in_hand_bytes.get() < 1 << 20);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(progress.paused() && !running.is_finished());
    proxy.down(false);
    lifecycle.drain();
    running.join().unwrap().unwrap();
    assert_eq!(metrics.rejoins.get(), 0, "membership lasted");
    server.check(&world, "after the outage");
}

#[test]
fn a_refused_client_stops_and_says_what_to_do() {
    let Some(server) = Server::find("outages::refused") else {
        return;
    };
    server.set_up();
    for (status, advice) in [(401, "sink_opensearch.password"), (403, "role")] {
        let (_folder, world) = world(50, false);
        let proxy = Proxy::before(&server.url, move |_| Fault::Refuse(status));
        let options = server.options(&world, server.target_at(&proxy.url()));
        let SinkError::Target(error) = run(options).unwrap_err() else {
            panic!("the target refuses")
        };
        assert!(matches!(error, TargetError::NotAllowed { .. }), "{error}");
        assert!(error.to_string().contains(advice), "{error}");
        assert!(server.stored().is_empty());
    }
}

#[test]
fn an_authority_of_ones_own_and_a_password_are_enough_and_both_are_needed() {
    let Some(server) = Server::find("outages::tls") else {
        return;
    };
    server.set_up();
    // base64 of writer:p@ss
    let proxy = Proxy::guarded(&server.url, "Basic d3JpdGVyOnBAc3M=");
    let target = |ca: bool, password: &str| {
        let mut options = BulkOptions::new(proxy.url());
        options.ca_pem = ca.then(|| include_bytes!("tls/ca.pem").to_vec());
        options.credentials = Some(Credentials::Basic {
            user: "writer".into(),
            password: password.into(),
        });
        Arc::new(BulkTarget::new(options).unwrap())
    };
    let (_folder, world) = world(300, true);
    run(server.options(&world, target(true, "p@ss"))).unwrap();
    server.check(&world, "over TLS");

    let untrusted = target(false, "p@ss").reach().unwrap_err().to_string();
    assert!(untrusted.contains("certificate"), "{untrusted}");
    assert!(untrusted.contains("sink_opensearch.ca_file"), "{untrusted}");
    let refused = target(true, "wrong").reach().unwrap_err().to_string();
    assert!(refused.contains("sink_opensearch.password"), "{refused}");
    assert!(!refused.contains("wrong"), "{refused}");
    let plain = server.target_at(&proxy.url().replace("https", "http"));
    let plain = plain.reach().unwrap_err().to_string();
    assert!(
        plain.contains("begin sink_opensearch.url with https://"),
        "{plain}"
    );
}
