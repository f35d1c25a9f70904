#![allow(clippy::unwrap_used, clippy::expect_used)]
use runtime::log::{Bounds, Committed, MAX_METADATA_BYTES};

use super::*;
use crate::layout::Layout;

fn plan() -> FlushPlan {
    let layout = Layout::new()
        .by_hour("pickup_at", "America/New_York")
        .unwrap()
        .by_column("vendor_id")
        .unwrap();
    FlushPlan {
        end: 200,
        rows: 99,
        dead: 1,
        files: 3,
        schema_id: 7,
        row_group_rows: 1000,
        writer: WRITER_VERSION,
        fingerprint: fingerprint(&layout, "\"long\"", 1000, WRITER_VERSION),
        layout,
    }
}

fn totals() -> Totals {
    Totals {
        from: 5,
        rows: 90,
        dead: 5,
        files: 2,
    }
}

fn committed(note: &Note) -> Committed {
    Committed {
        offset: 100,
        metadata: note.encode().unwrap(),
    }
}

const OPEN: Bounds = Bounds {
    start: 5,
    stable: 300,
    end: 300,
};

fn facts(committed: Option<&Committed>) -> Facts<'_> {
    Facts {
        topic_id: "T",
        cleanup_policy: "delete",
        bounds: OPEN,
        committed,
        files_exist: false,
    }
}

#[test]
fn each_observation_has_its_one_decision() {
    let settled = committed(&Note::new("T", totals(), None));
    let pending = committed(&Note::new("T", totals(), Some(plan())));
    let empty = Committed {
        offset: 100,
        metadata: String::new(),
    };
    let foreign = Committed {
        offset: 100,
        metadata: "{\"watermark\":3}".into(),
    };
    let newer = Committed {
        offset: 100,
        metadata: "{\"v\":2,\"other\":true}".into(),
    };
    let other_writer = committed(&Note::new(
        "T",
        totals(),
        Some(FlushPlan {
            writer: 0,
            ..plan()
        }),
    ));
    let other_topic = committed(&Note::new("U", totals(), None));

    assert_eq!(decide(&facts(None)), Decision::Begin { at: 5 });
    assert_eq!(
        decide(&facts(Some(&settled))),
        Decision::GoOn {
            at: 100,
            totals: totals()
        }
    );
    assert_eq!(
        decide(&facts(Some(&pending))),
        Decision::Finish {
            start: 100,
            totals: totals(),
            plan: plan()
        }
    );

    let refusal = |facts: &Facts<'_>| match decide(facts) {
        Decision::Refuse(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    };
    for policy in ["compact", "compact,delete", "delete, compact"] {
        assert_eq!(
            refusal(&Facts {
                cleanup_policy: policy,
                ..facts(Some(&settled))
            }),
            Refusal::Compacted
        );
    }
    assert_eq!(
        refusal(&Facts {
            files_exist: true,
            ..facts(None)
        }),
        Refusal::FilesWithoutOffset
    );
    for strange in [&empty, &foreign] {
        assert!(matches!(
            refusal(&facts(Some(strange))),
            Refusal::ForeignOffset { offset: 100, .. }
        ));
    }
    assert_eq!(
        refusal(&facts(Some(&newer))),
        Refusal::Newer(NoteError::Newer { found: 2 })
    );
    assert_eq!(
        refusal(&facts(Some(&other_topic))),
        Refusal::OtherTopic {
            committed: "U".into(),
            found: "T".into()
        }
    );
    for standing in [&settled, &pending] {
        let bounds = Bounds { start: 101, ..OPEN };
        assert_eq!(
            refusal(&Facts {
                bounds,
                ..facts(Some(standing))
            }),
            Refusal::Overtaken {
                offset: 100,
                log_start: 101
            }
        );
    }
    let short = Bounds {
        end: 199,
        stable: 199,
        ..OPEN
    };
    assert_eq!(
        refusal(&Facts {
            bounds: short,
            ..facts(Some(&pending))
        }),
        Refusal::Truncated {
            needed: 200,
            log_end: 199
        }
    );
    assert_eq!(
        decide(&Facts {
            bounds: short,
            ..facts(Some(&settled))
        }),
        Decision::GoOn {
            at: 100,
            totals: totals()
        }
    );
    let empty_log = Bounds {
        start: 0,
        end: 99,
        stable: 99,
    };
    assert_eq!(
        refusal(&Facts {
            bounds: empty_log,
            ..facts(Some(&settled))
        }),
        Refusal::Truncated {
            needed: 100,
            log_end: 99
        }
    );
    assert!(matches!(
        refusal(&facts(Some(&other_writer))),
        Refusal::OtherFingerprint {
            start: 100,
            end: 200,
            ..
        }
    ));
}

#[test]
fn every_refusal_says_what_to_do() {
    for refusal in [
        Refusal::Compacted,
        Refusal::FilesWithoutOffset,
        Refusal::ForeignOffset {
            offset: 1,
            detail: "x".into(),
        },
        Refusal::Newer(NoteError::Newer { found: 2 }),
        Refusal::OtherTopic {
            committed: "a".into(),
            found: "b".into(),
        },
        Refusal::Overtaken {
            offset: 1,
            log_start: 2,
        },
        Refusal::Truncated {
            needed: 1,
            log_end: 0,
        },
        Refusal::OtherFingerprint {
            start: 0,
            end: 1,
            detail: "x".into(),
        },
        Refusal::OtherRecords {
            start: 0,
            end: 1,
            detail: "x".into(),
        },
    ] {
        let text = refusal.to_string().to_lowercase();
        let verbs = [
            "restore", "set ", "run ", "delete ", "raise ", "bring ", "finish ",
        ];
        assert!(verbs.iter().any(|verb| text.contains(verb)), "{text}");
    }
}

#[test]
fn a_note_survives_the_metadata_string() {
    for note in [
        Note::new("T", totals(), None),
        Note::new("T", totals(), Some(plan())),
    ] {
        assert_eq!(Note::parse(&note.encode().unwrap()).unwrap(), note);
    }
}

#[test]
fn a_plan_with_the_largest_numbers_fits() {
    let mut layout = Layout::new()
        .by_hour("pickup_at", "America/Argentina/ComodRivadavia")
        .unwrap();
    for column in 0..16 {
        layout = layout.by_column(&format!("{column:032}")).unwrap();
    }
    let plan = FlushPlan {
        end: i64::MAX,
        rows: u64::MAX,
        dead: u64::MAX,
        files: u64::MAX,
        schema_id: u32::MAX,
        row_group_rows: usize::MAX,
        fingerprint: fingerprint(&layout, "", 1, 1),
        layout,
        ..plan()
    };
    let totals = Totals {
        from: i64::MAX,
        rows: u64::MAX,
        dead: u64::MAX,
        files: u64::MAX,
    };
    assert!(
        Note::new("0123456789012345678901", totals, Some(plan))
            .encode()
            .unwrap()
            .len()
            < 2048
    );
}

#[test]
fn a_note_that_does_not_fit_is_an_error() {
    let layout = Layout::new()
        .by_column(&"c".repeat(MAX_METADATA_BYTES))
        .unwrap();
    let note = Note::new("T", totals(), Some(FlushPlan { layout, ..plan() }));
    assert!(
        matches!(note.encode(), Err(NoteError::TooLarge { bytes }) if bytes > MAX_METADATA_BYTES)
    );
}

#[test]
fn the_fingerprint_tells_layout_schema_and_writer_apart() {
    let layout = plan().layout;
    let base = fingerprint(&layout, "s", 10, 1);
    assert_eq!(base, fingerprint(&layout.clone(), "s", 10, 1));
    let other = Layout::new()
        .by_hour("pickup_at", "UTC")
        .unwrap()
        .by_column("vendor_id")
        .unwrap();
    for differs in [
        fingerprint(&other, "s", 10, 1),
        fingerprint(&layout, "t", 10, 1),
        fingerprint(&layout, "s", 11, 1),
        fingerprint(&layout, "s", 10, 2),
    ] {
        assert_ne!(base, differs);
    }
    assert!(check_schema(100, &plan(), "\"long\"").is_ok());
    assert!(matches!(
        check_schema(100, &plan(), "\"int\""),
        Err(Refusal::OtherFingerprint { .. })
    ));
    assert!(check_counts(100, &plan(), 99, 1, 3).is_ok());
    for (rows, dead, files) in [(98, 1, 3), (99, 2, 3), (99, 1, 4)] {
        assert!(matches!(
            check_counts(100, &plan(), rows, dead, files),
            Err(Refusal::OtherRecords { .. })
        ));
    }
}
