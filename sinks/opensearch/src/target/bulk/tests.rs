#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::client::decoded;
use super::*;
use crate::target::Remedy;

fn target() -> BulkTarget {
    BulkTarget::new(BulkOptions::new("http://user:p%40ss@127.0.0.1:1/base/")).unwrap()
}

#[test]
fn credentials_in_the_address_are_used_and_never_shown() {
    assert_eq!(target().name(), "http://127.0.0.1:1/base");
    assert_eq!(decoded("p%40ss%zz%"), "p@ss%zz%");
    let bad = BulkTarget::new(BulkOptions::new("search:9200"))
        .err()
        .unwrap();
    assert!(bad.to_string().contains("https://search:9200"), "{bad}");
}

#[test]
fn each_item_status_has_its_outcome() {
    let target = target();
    let outcome = |status: u16, kind: &str| {
        let text = format!(
            r#"{{"index":{{"status":{status},"error":{{"type":"{kind}","reason":"r"}}}}}}"#
        );
        target.outcome(serde_json::from_str(&text).unwrap(), "i")
    };
    let retry = |status, kind: &str, overloaded| Outcome::Retry {
        reason: format!("HTTP {status}: {kind}: r"),
        overloaded,
    };
    for (status, kind, expected) in [
        (200, "", Outcome::Stored),
        (201, "", Outcome::Stored),
        (409, "version_conflict_engine_exception", Outcome::Conflict),
        (409, "other", retry(409, "other", false)),
        (
            429,
            "rejected_execution_exception",
            retry(429, "rejected_execution_exception", true),
        ),
        (
            403,
            "cluster_block_exception",
            retry(403, "cluster_block_exception", true),
        ),
        (500, "x", retry(500, "x", false)),
        (
            503,
            "unavailable_shards_exception",
            retry(503, "unavailable_shards_exception", false),
        ),
        (
            404,
            "index_not_found_exception",
            retry(404, "index_not_found_exception", false),
        ),
        (
            400,
            "mapper_parsing_exception",
            Outcome::Rejected {
                reason: "HTTP 400: mapper_parsing_exception: r".into(),
            },
        ),
        (
            413,
            "x",
            Outcome::Rejected {
                reason: "HTTP 413: x: r".into(),
            },
        ),
    ] {
        assert_eq!(outcome(status, kind).unwrap(), expected, "{status} {kind}");
    }
    for (status, kind) in [
        (401, "x"),
        (403, "x"),
        (404, "x"),
        (400, "index_closed_exception"),
    ] {
        let error = outcome(status, kind).unwrap_err();
        assert_eq!(error.remedy(), Remedy::Stop, "{status} {kind}");
    }
}

#[test]
fn each_status_of_a_whole_call_has_its_remedy() {
    let target = target();
    let said = br#"{"error":{"type":"t","reason":"r","caused_by":{"type":"u","reason":"s"}},"status":400}"#;
    let block = br#"{"error":{"type":"cluster_block_exception","reason":"disk"},"status":403}"#;
    for (status, body, remedy) in [
        (400, &said[..], Remedy::Split),
        (
            400,
            b"<html>plain HTTP request sent to HTTPS port",
            Remedy::Stop,
        ),
        (401, b"Unauthorized", Remedy::Stop),
        (403, &said[..], Remedy::Stop),
        (403, &block[..], Remedy::Ease),
        (404, b"", Remedy::Stop),
        (405, b"", Remedy::Stop),
        (302, b"", Remedy::Stop),
        (408, b"", Remedy::Wait),
        (413, b"", Remedy::Split),
        (429, b"", Remedy::Ease),
        (500, b"", Remedy::Wait),
        (502, b"", Remedy::Wait),
        (503, b"", Remedy::Wait),
    ] {
        let error = target.client.refused(status, body, 10, None);
        assert_eq!(error.remedy(), remedy, "{status}: {error}");
    }
    let text = target.client.refused(400, said, 10, None).to_string();
    assert!(text.contains("HTTP 400: t: r: u: s"), "{text}");
    let text = target
        .client
        .refused(500, br#"{"error":"plain text"}"#, 10, None)
        .to_string();
    assert!(text.contains("plain text"), "{text}");
}

#[test]
fn a_server_that_is_not_there_is_waited_for() {
    let document = Document {
        index: "i".into(),
        id: "x".into(),
        version: 1,
        source: b"{}".to_vec(),
    };
    let error = target().write(&[&document]).unwrap_err();
    assert_eq!(error.remedy(), Remedy::Wait);
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(!error.to_string().contains("p@ss"), "{error}");
}
