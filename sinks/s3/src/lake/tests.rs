#![allow(clippy::unwrap_used, clippy::expect_used)]
use object_store::memory::InMemory;

use super::*;

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
    assert_eq!(
        block_on(lake.put(&path, Bytes::from_static(b"one"))).unwrap(),
        Put::Created
    );
    assert_eq!(
        block_on(lake.put(&path, Bytes::from_static(b"two"))).unwrap(),
        Put::Present
    );
    let file = dir.path().join("lake/t/name=a%2Fb %25/t-I+0+0-7.parquet");
    assert_eq!(std::fs::read(file).unwrap(), b"one");
}

#[test]
fn only_files_of_this_topic_id_and_partition_count() {
    let dir = tempfile::tempdir().unwrap();
    let lake = OpenLake::open(&Lake::At(Location::new(dir.path().display().to_string()))).unwrap();
    let found = |id: &str, partitions: &[i32]| {
        block_on(lake.partitions_with_files("t", id, partitions)).unwrap()
    };
    assert!(found("I", &[0, 1]).is_empty());
    let put = |path: Path| block_on(lake.put(&path, Bytes::from_static(b"x"))).unwrap();
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
fn each_failure_of_a_store_is_sorted_once() {
    use object_store::Error;
    let source = || "it says so".into();
    let path = || "p".to_owned();
    for (error, may_pass) in [
        (
            Error::Generic {
                store: "S3",
                source: source(),
            },
            true,
        ),
        (
            Error::NotFound {
                path: path(),
                source: source(),
            },
            false,
        ),
        (Error::NotSupported { source: source() }, false),
        (
            Error::PermissionDenied {
                path: path(),
                source: source(),
            },
            false,
        ),
        (
            Error::Unauthenticated {
                path: path(),
                source: source(),
            },
            false,
        ),
        (
            Error::NotImplemented {
                operation: path(),
                implementer: path(),
            },
            false,
        ),
    ] {
        let sorted = LakeError::of("write", &Path::from("p"), error);
        assert_eq!(sorted.may_pass(), may_pass, "{sorted}");
    }
}
