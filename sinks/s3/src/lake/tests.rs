#![allow(clippy::unwrap_used, clippy::expect_used)]
use arrow::array::{ArrayRef, Int32Array, RecordBatch};
use object_store::memory::InMemory;

use super::*;
use crate::layout::Layout;
use crate::writer::{FlushWriter, WriterOptions};

fn origin(topic: &str, id: &str, partition: i32) -> Origin {
    Origin {
        topic: topic.into(),
        topic_id: id.into(),
        partition,
        start: 0,
        end: 7,
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn names_are_derived_from_the_flush_and_the_folder() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lake = OpenLake::open(&Lake::Store {
        store,
        prefix: Path::from("a/b"),
    })
    .unwrap();
    let origin = origin("trips", "Id_-", 3);
    assert_eq!(
        lake.data_path("x=1/y=a%2Fb", &origin).as_ref(),
        "a/b/trips/x=1/y=a%2Fb/trips-Id_-+3+0-7.parquet"
    );
    assert_eq!(
        lake.data_path("", &origin).as_ref(),
        "a/b/trips/trips-Id_-+3+0-7.parquet"
    );
    assert_eq!(
        lake.errors_path(&origin).as_ref(),
        "a/b/errors/trips/trips-Id_-+3+0-7.jsonl"
    );
}

#[test]
fn an_object_in_a_folder_is_created_once_under_its_own_name() {
    let dir = tempfile::tempdir().unwrap();
    let address = format!("file://{}/lake", dir.path().display());
    let lake = OpenLake::open(&Lake::At(Location::new(address))).unwrap();
    let path = lake.data_path("name=a%2Fb %25", &origin("t", "I", 0));
    let put = |text: &'static [u8]| block_on(lake.put(&path, Bytes::from_static(text), 0));
    assert_eq!(put(b"one").unwrap(), Put::Created);
    assert_eq!(put(b"one").unwrap(), Put::Present);
    let file = dir.path().join("lake/t/name=a%2Fb %25/t-I+0+0-7.parquet");
    assert_eq!(std::fs::read(file).unwrap(), b"one");
}

/// A Parquet file of these rows, with what the sink says of them.
fn parquet(rows: &[i32], group: usize, topic_id: &str) -> Bytes {
    let batch =
        RecordBatch::try_from_iter([("n", Arc::new(Int32Array::from(rows.to_vec())) as ArrayRef)])
            .unwrap();
    let options = WriterOptions {
        row_group_rows: group,
        spill_dir: std::env::temp_dir(),
    };
    let mut writer = FlushWriter::new(&Layout::new(), batch.schema(), options).unwrap();
    writer.push(&batch).unwrap();
    let mut files = writer.finish().unwrap();
    files.remove(0).encode(&origin("t", topic_id, 0)).unwrap()
}

#[test]
fn what_is_there_already_is_taken_only_if_it_is_the_same() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let prefix = Path::default();
    let lake = OpenLake::open(&Lake::Store { store, prefix }).unwrap();
    let put = |name: &str, bytes: Bytes| block_on(lake.put(&Path::from(name), bytes, 0));
    let rows: Vec<i32> = (0..100).collect();
    let ours = parquet(&rows, 1000, "I");
    assert_eq!(put("a", ours.clone()).unwrap(), Put::Created);
    assert_eq!(put("a", ours).unwrap(), Put::Present);
    // other bytes that say that they are the same rows
    assert_eq!(put("a", parquet(&rows, 10, "I")).unwrap(), Put::Present);
    for other in [
        parquet(&rows[..99], 1000, "I"),
        parquet(&rows, 1000, "J"),
        Bytes::from_static(b"x"),
    ] {
        let error = put("a", other).unwrap_err();
        assert!(matches!(error, LakeError::Foreign { .. }), "{error}");
        assert!(!error.may_pass());
    }
    let letters = |text: &str| Bytes::from(text.to_owned());
    put("b", letters("{\"partition\":0,\"offset\":7}\n")).unwrap();
    let same = letters("{\"offset\":7,\"partition\":0}\n");
    assert_eq!(put("b", same).unwrap(), Put::Present);
    put("b", letters("{\"partition\":0,\"offset\":8}\n")).unwrap_err();
}

#[test]
fn only_files_of_this_topic_id_and_partition_count() {
    let dir = tempfile::tempdir().unwrap();
    let lake = OpenLake::open(&Lake::At(Location::new(dir.path().display().to_string()))).unwrap();
    let found = |id: &str, partitions: &[i32]| {
        block_on(lake.partitions_with_files("t", id, partitions)).unwrap()
    };
    assert!(found("I", &[0, 1]).is_empty());
    let put = |path: Path| block_on(lake.put(&path, Bytes::from_static(b"x"), 0)).unwrap();
    put(lake.data_path("a=1", &origin("t", "I", 10)));
    put(lake.data_path("a=1", &origin("u", "I", 0)));
    put(lake.errors_path(&origin("t", "I", 2)));
    assert_eq!(found("I", &[0, 1, 2, 10]), [10, 2]);
    assert!(found("J", &[0, 1, 2, 10]).is_empty());
}

#[test]
fn an_address_that_makes_no_sense_says_what_would() {
    for url in ["", "s3://", "ftp://x/y", "gs://bucket"] {
        let error = OpenLake::open(&Lake::At(Location::new(url))).unwrap_err();
        assert!(
            error.to_string().contains("Use s3://bucket/prefix"),
            "{error}"
        );
        assert!(!error.may_pass());
    }
}

#[test]
fn settings_that_make_no_sense_are_told_before_any_call() {
    let open = |location: &Location| s3::open(location, &|_| None).unwrap_err().to_string();
    let bucket = Location::new("s3://bucket/prefix");
    for endpoint in [
        "127.0.0.1:9000",
        "localhost:9000",
        "ftp://x",
        "http://x?y=z",
    ] {
        let endpoint = Some(endpoint.to_owned());
        let text = open(&Location {
            endpoint,
            ..bucket.clone()
        });
        assert!(text.contains("http://host:port"), "{text}");
    }
    let credentials = Some(Credentials {
        access_key_id: "key".to_owned().into(),
        ..Credentials::default()
    });
    let text = open(&Location {
        credentials,
        ..bucket.clone()
    });
    assert!(text.contains("set both, or neither"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let text = open(&Location {
        ca_file: Some(file),
        ..bucket.clone()
    });
    assert!(text.contains("holds no certificate"), "{text}");
    let ca_file = Some(dir.path().join("nowhere.pem"));
    let text = open(&Location { ca_file, ..bucket });
    assert!(text.contains("nowhere.pem can't be read"), "{text}");
}

#[test]
fn each_failure_of_a_store_is_sorted_once() {
    use object_store::Error;
    let generic = |text: &str| Error::Generic {
        store: "S3",
        source: text.into(),
    };
    let path = || "p".to_owned();
    let denied = |text: &str| Error::PermissionDenied {
        path: path(),
        source: text.into(),
    };
    let missing = |text: &str| Error::NotFound {
        path: path(),
        source: text.into(),
    };
    for (error, cause, may_pass, at_start) in [
        (generic("it says so"), Cause::Other, true, true),
        (
            generic("503: <Code>SlowDown</Code>"),
            Cause::Other,
            true,
            true,
        ),
        (
            generic("tcp connect error: Connection refused"),
            Cause::Unreachable,
            true,
            true,
        ),
        (
            generic("client error (Connect): dns error: failed to lookup address information"),
            Cause::UnknownHost,
            true,
            true,
        ),
        (
            generic("invalid peer certificate: UnknownIssuer"),
            Cause::Certificate,
            true,
            false,
        ),
        (
            generic("PUT http://169.254.169.254/latest"),
            Cause::NoCredentials,
            true,
            false,
        ),
        (
            generic("status code: 405 Method Not Allowed"),
            Cause::NotS3,
            true,
            false,
        ),
        (
            generic("400: <Code>ExpiredToken</Code>"),
            Cause::Expired,
            true,
            false,
        ),
        (
            missing("<Code>NoSuchBucket</Code>"),
            Cause::NoBucket,
            false,
            false,
        ),
        (missing("<html>"), Cause::NotS3, true, false),
        (
            denied("<Code>AccessDenied</Code>"),
            Cause::Denied,
            false,
            false,
        ),
        (
            denied("<Code>InvalidAccessKeyId</Code>"),
            Cause::UnknownKey,
            false,
            false,
        ),
        (
            denied("<Code>SignatureDoesNotMatch</Code>"),
            Cause::WrongSecret,
            false,
            false,
        ),
        (
            denied("<Code>RequestTimeTooSkewed</Code>"),
            Cause::Clock,
            true,
            false,
        ),
        (denied(""), Cause::Denied, false, false),
        (
            Error::NotImplemented {
                operation: path(),
                implementer: path(),
            },
            Cause::Unsupported,
            false,
            false,
        ),
    ] {
        let found = Cause::of(&error);
        assert_eq!(
            (found, found.may_pass(), found.may_pass_at_start()),
            (cause, may_pass, at_start),
            "{error}"
        );
    }
}
