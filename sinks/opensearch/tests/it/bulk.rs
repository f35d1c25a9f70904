//! The bulk client against a server that refuses in all the ways that OpenSearch does.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use sink_opensearch::{
    BulkOptions, BulkTarget, Document, Outcome, SinkError, Target, TargetError, run,
};

use crate::server::{Bulk, Operation, Reply, Server};
use crate::support::{SCHEMA, TOPIC, World, settings};

fn target(server: &Server) -> Arc<BulkTarget> {
    let mut options = BulkOptions::new(server.url());
    options.request_timeout = Duration::from_secs(60);
    Arc::new(BulkTarget::new(options).unwrap())
}

fn document(id: &str, version: i64) -> Document {
    let source = format!("{{\"version\":{version}}}").into_bytes();
    Document {
        index: "i-2016.01".into(),
        id: id.into(),
        version,
        source,
    }
}

fn write(target: &dyn Target, documents: &[Document]) -> Result<Vec<Outcome>, TargetError> {
    target.write(&documents.iter().collect::<Vec<_>>())
}

/// A world of records, and the sink run over it to the server.
fn sink(
    records: usize,
    bad: bool,
    server: &Server,
    change: impl FnOnce(&mut sink_opensearch::Options),
) -> World {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path());
    world.write(records, bad);
    let target = target(server);
    target.setup(&settings(), SCHEMA, true).unwrap();
    let mut options = world.options(world.log.clone(), target);
    options.lifecycle.drain();
    change(&mut options);
    run(options).unwrap();
    world
}

#[test]
fn documents_are_stored_with_external_versions_and_a_conflict_is_success() {
    let server = Server::start(|_| Reply::Take);
    let target = target(&server);
    use Outcome::{Conflict, Stored};
    let first = [
        document("a+1", 3),
        document("b", 1),
        document("a+1", 2),
        document("a+1", 4),
    ];
    assert_eq!(
        write(&*target, &first).unwrap(),
        [Stored, Stored, Conflict, Stored]
    );
    assert_eq!(write(&*target, &first).unwrap(), [const { Conflict }; 4]);
    assert_eq!(write(&*target, &[]).unwrap(), []);
    assert_eq!(server.bulks().len(), 2, "nothing is sent for no document");
    assert_eq!(server.documents()[0].source["version"], 4);
    assert_eq!(
        (
            target.count("i-*", None).unwrap(),
            target.count("j-*", None).unwrap()
        ),
        (2, 0)
    );
}

#[test]
fn everything_on_the_log_is_in_the_indices_of_its_months() {
    let server = Server::start(|_| Reply::Take);
    let world = sink(400, true, &server, |_| {});
    assert_eq!(server.versions(), world.expected);
    world.check_ledger("bulk");
    let months: BTreeSet<_> = world
        .expected
        .keys()
        .map(|(index, _)| index.as_str())
        .collect();
    assert_eq!(
        months,
        BTreeSet::from(["statistics-2016.01", "statistics-2016.02"])
    );
}

#[test]
fn only_the_items_that_failed_are_sent_again() {
    // in the first two bulks every third item is refused for a while
    let busy = |bulk: &Bulk, operation: &Operation| {
        let chosen = operation.version % 3 == 0;
        let refusal = if bulk.number == 0 {
            (429, "rejected_execution_exception")
        } else {
            (503, "unavailable_shards_exception")
        };
        (bulk.number < 2 && chosen).then_some(refusal)
    };
    let server = Server::start(move |_| Reply::Items(busy));
    let world = sink(60, false, &server, |options| {
        options.flush_interval = Duration::from_secs(60)
    });
    assert_eq!(server.versions(), world.expected);
    let bulks = server.bulks();
    let again = |bulk: &Bulk| {
        bulk.operations
            .iter()
            .filter(|operation| operation.version % 3 == 0)
            .count()
    };
    assert!(again(&bulks[0]) > 0);
    for later in &bulks[1..3] {
        assert_eq!(later.operations.len(), again(&bulks[0]), "only what failed");
        assert!(
            later
                .operations
                .iter()
                .all(|operation| operation.version % 3 == 0)
        );
    }
    assert_eq!(bulks.len(), 3);
}

#[test]
fn a_server_that_is_overloaded_gets_smaller_bulks() {
    const CAPACITY: usize = 3_000;
    let server = Server::start(|bulk| match bulk.bytes {
        0..=CAPACITY => Reply::Take,
        _ => Reply::Refuse(
            429,
            "{\"error\":{\"type\":\"circuit_breaking_exception\",\"reason\":\"busy\"}}".into(),
        ),
    });
    let world = sink(500, false, &server, |options| {
        options.pacing.max_bulk_bytes = 40_000;
        options.pacing.min_bulk_bytes = 500;
    });
    assert_eq!(server.versions(), world.expected);
    let (taken, refused): (Vec<_>, Vec<_>) = server
        .bulks()
        .into_iter()
        .partition(|bulk| bulk.bytes <= CAPACITY);
    assert!(
        refused.len() < taken.len(),
        "{} refused, {} taken",
        refused.len(),
        taken.len()
    );
    assert!(
        taken.iter().map(|bulk| bulk.operations.len()).max() > Some(5),
        "bulks are still bulks"
    );
}

#[test]
fn a_request_that_is_too_large_is_cut_and_a_document_that_is_too_large_is_a_dead_letter() {
    let server = Server::start(|bulk| match bulk.bytes {
        0..=2_000 => Reply::Take,
        _ => Reply::Refuse(413, String::new()),
    });
    let world = sink(300, false, &server, |options| {
        options.pacing.max_bulk_bytes = 50_000
    });
    assert_eq!(server.versions(), world.expected);
    assert!(world.dead_letters().is_empty());

    let server = Server::start(|bulk| {
        match bulk
            .operations
            .iter()
            .any(|operation| operation.version == 7)
        {
            false => Reply::Take,
            true => Reply::Refuse(413, String::new()),
        }
    });
    let world = sink(300, false, &server, |_| {});
    let sevens = server
        .documents()
        .iter()
        .filter(|document| document.version == 7)
        .count();
    assert_eq!(sevens, 0);
    assert!(!world.dead_letters().is_empty());
}

#[test]
fn a_rejected_document_is_a_dead_letter_and_the_others_are_stored() {
    let strict = |_: &Bulk, operation: &Operation| {
        (operation.version % 5 == 0).then_some((400, "strict_dynamic_mapping_exception"))
    };
    let server = Server::start(move |_| Reply::Items(strict));
    let world = sink(400, true, &server, |_| {});
    let dead: BTreeSet<_> = world.dead_letters().into_iter().collect();
    assert!(dead.is_superset(&world.dead) && dead.len() > world.dead.len());
    assert!(
        server
            .documents()
            .iter()
            .all(|document| document.version % 5 != 0)
    );
    let ledgers =
        sink_opensearch::read_ledger(&*world.log, crate::support::GROUP, &[TOPIC]).unwrap();
    let counted = ledgers
        .values()
        .map(|counted| counted.ledger.as_ref().unwrap());
    let (docs, letters) = counted.fold((0, 0), |sum, ledger| {
        (sum.0 + ledger.docs, sum.1 + ledger.dead)
    });
    assert_eq!(
        (docs, letters),
        (world.records - dead.len() as u64, dead.len() as u64)
    );
}

#[test]
fn a_bulk_refused_as_a_whole_is_narrowed_down_to_the_document_at_fault() {
    let server = Server::start(|bulk| {
        match bulk
            .operations
            .iter()
            .any(|operation| operation.version == 11)
        {
            false => Reply::Take,
            true => Reply::Refuse(
                400,
                "{\"error\":{\"type\":\"action_request_validation_exception\",\"reason\":\"no\"}}"
                    .into(),
            ),
        }
    });
    let world = sink(300, false, &server, |_| {});
    let elevens = world.dead_letters().len() as u64;
    assert!(elevens > 0 && elevens < 30, "{elevens}");
    let stored: BTreeSet<_> = server
        .documents()
        .iter()
        .map(|document| document.version)
        .collect();
    assert!(!stored.contains(&11));
}

#[test]
fn a_server_that_stores_and_breaks_off_is_asked_again() {
    let server = Server::start(|bulk| match bulk.number % 2 {
        0 => Reply::TakeAndBreak,
        _ => Reply::Take,
    });
    let world = sink(200, false, &server, |_| {});
    assert_eq!(server.versions(), world.expected);
    world.check_ledger("broken off");
}

#[test]
fn a_client_without_permission_stops_and_says_what_to_do() {
    for status in [401, 403] {
        let server = Server::start(move |_| Reply::Refuse(status, "no".into()));
        let folder = tempfile::tempdir().unwrap();
        let mut world = World::new(folder.path());
        world.write(20, false);
        let target = target(&server);
        target.setup(&settings(), SCHEMA, true).unwrap();
        let options = world.options(world.log.clone(), target);
        options.lifecycle.drain();
        let error = run(options).unwrap_err();
        let SinkError::Target(cause) = &error else {
            panic!("{error:?}")
        };
        let advice = ["check the user", "give the user a role"][usize::from(status == 403)];
        assert!(cause.to_string().contains(advice), "{cause}");
        assert!(cause.to_string().contains(&status.to_string()), "{cause}");
        let ledgers =
            sink_opensearch::read_ledger(&*world.log, crate::support::GROUP, &[TOPIC]).unwrap();
        assert!(
            ledgers.is_empty(),
            "nothing is committed that is not stored"
        );
    }
}

#[test]
fn credentials_are_sent_as_they_are_given() {
    let server = Server::start(|_| Reply::Take);
    let mut options = BulkOptions::new(server.url().replace("http://", "http://us%65r:pass@"));
    let in_address = BulkTarget::new(options.clone()).unwrap();
    write(&in_address, &[document("a", 1)]).unwrap();
    options.credentials = Some(sink_opensearch::Credentials::Bearer("token".into()));
    write(&BulkTarget::new(options).unwrap(), &[document("a", 2)]).unwrap();
    let sent: Vec<_> = server
        .bulks()
        .into_iter()
        .map(|bulk| bulk.authorization.unwrap())
        .collect();
    // base64 of user:pass
    assert_eq!(sent, ["Basic dXNlcjpwYXNz", "Bearer token"]);
}

#[test]
fn what_answers_but_is_no_opensearch_is_named() {
    let server = Server::start(|_| Reply::Refuse(200, "<html>hello</html>".into()));
    let error = write(&*target(&server), &[document("a", 1)]).unwrap_err();
    assert!(
        error.to_string().contains("not to be OpenSearch"),
        "{error}"
    );
}
