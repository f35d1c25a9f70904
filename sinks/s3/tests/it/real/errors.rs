//! What a user reads who names a store that can't be used.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::thread;

use sink_s3::{Credentials, Location, SinkError};

use super::servers::{Server, on_servers};
use crate::world::World;

/// How a run ends that goes to this lake: the error with its causes.
pub fn failure(server: &Server, world: &World, location: Location) -> String {
    let error = sink_s3::run(server.options_at(world, location)).unwrap_err();
    assert!(matches!(error, SinkError::Lake(_)), "{error}");
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    for secret in [&server.secret_key, "a wrong secret"] {
        assert!(!text.contains(secret), "{text}");
    }
    text
}

#[test]
fn each_way_in_which_a_store_cant_be_used_says_what_to_do() {
    on_servers("each_way_in_which", |server| {
        let world = server.world(1);
        let expect = |what: &str, location: Location| {
            let text = failure(server, &world, location);
            assert!(text.contains(what), "{what:?} is not in: {text}");
            assert!(
                text.contains(&server.bucket) || what.contains("bucket"),
                "{text}"
            );
        };
        let keys = |access: &str, secret: &str| Location {
            credentials: Some(Credentials {
                access_key_id: access.to_owned().into(),
                secret_access_key: secret.to_owned().into(),
                ..Credentials::default()
            }),
            ..server.location()
        };
        let at = |endpoint: String| Location {
            endpoint: Some(endpoint),
            ..server.location()
        };

        expect(
            "there is no such bucket; create it",
            Location {
                url: "s3://headway-no-such-bucket/lake".into(),
                ..server.location()
            },
        );
        expect(
            "doesn't know the access key",
            keys("nobody", "a wrong secret"),
        );
        expect(
            "the secret key does not belong",
            keys(&server.access_key, "a wrong secret"),
        );
        if server.name != "minio" {
            // MinIO takes every region
            expect(
                "set sink_s3.region",
                Location {
                    region: Some("eu-elsewhere-7".into()),
                    ..server.location()
                },
            );
        }
        // A port that nothing listens on, and that is given to nobody else meanwhile.
        expect("nothing answers there", at("http://127.0.0.1:1".into()));
    });
}

#[test]
fn credentials_that_may_not_write_are_told_what_they_need() {
    on_servers("credentials_that_may_not_write", |server| {
        if server.name != "versitygw" {
            // MinIO makes users by calls of its own kind alone
            return;
        }
        let (access, secret) = ("headway-stranger", "headway-stranger-secret");
        make_user(server, access, secret);
        let location = Location {
            credentials: Some(Credentials {
                access_key_id: access.to_owned().into(),
                secret_access_key: secret.to_owned().into(),
                ..Credentials::default()
            }),
            ..server.location()
        };
        let text = failure(server, &server.world(1), location);
        assert!(text.contains("they need s3:PutObject"), "{text}");
    });
}

/// A user who may do nothing.
fn make_user(server: &Server, access: &str, secret: &str) {
    let body = format!(
        "<Account><Access>{access}</Access><Secret>{secret}</Secret><Role>user</Role></Account>"
    );
    let hash: String = sha2_hex(body.as_bytes());
    let status = Command::new("curl")
        .args(["-s", "-o", "/dev/null", "-X", "PATCH", "-d", &body])
        .args(["--aws-sigv4", &format!("aws:amz:{}:s3", server.region)])
        .args([
            "--user",
            &format!("{}:{}", server.access_key, server.secret_key),
        ])
        .args(["-H", &format!("x-amz-content-sha256: {hash}")])
        .args(["-H", "Content-Type: application/xml"])
        .arg(format!("{}/create-user", server.endpoint))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "curl: {status}");
}

fn sha2_hex(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// An HTTP server that gives the same answer to all.
fn stranger(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else {
                return;
            };
            let mut head = [0; 64 << 10];
            let _ = connection.read(&mut head);
            let _ = connection.write_all(answer.as_bytes());
        }
    });
    endpoint
}

#[test]
fn a_server_that_is_no_s3_server_is_told_apart() {
    on_servers("a_server_that_is_no_s3_server", |server| {
        let world = server.world(1);
        for answer in [
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            "HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 5\r\nConnection: close\r\n\r\nnope.",
            "HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ] {
            let location = Location {
                endpoint: Some(stranger(answer)),
                ..server.location()
            };
            let text = failure(server, &world, location);
            assert!(text.contains("no S3 server"), "{answer:?}: {text}");
        }
    });
}
