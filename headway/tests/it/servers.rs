//! A server that is missing, refuses, or is another one than it should be: each binary that needs it says at its start,
//! within a bounded time, where it looked, which setting says so, and what to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::run::{generate, text};
use crate::setup::Pipeline;

/// A server that answers every request alike, as long as the test runs.
fn answering(status: u16, body: &'static str) -> SocketAddr {
    serving(move |stream| {
        let mut reader = BufReader::new(&stream);
        // Anything that is no request, such as the first bytes of TLS, is answered too, and ends the connection.
        let mut served = true;
        while served {
            served = request(&mut reader).is_some();
            let answer = format!(
                "HTTP/1.1 {status} X\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            served &= (&stream).write_all(answer.as_bytes()).is_ok();
        }
    })
}

/// Reads a request.
fn request(reader: &mut impl BufRead) -> Option<()> {
    if !reader.fill_buf().ok()?.first()?.is_ascii_alphabetic() {
        return None;
    }
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        if line.is_empty() {
            break;
        }
    }
    reader.read_exact(&mut vec![0; length]).ok()
}

/// A server that takes connections, and closes them at the first bytes, as a listener with TLS does.
fn closing() -> SocketAddr {
    serving(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
    })
}

fn serving(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let serve = serve.clone();
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// An address where nobody listens, and that no other test is given meanwhile: its port is none of those that are given out.
fn nobody() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

/// More than the waits below, and a loaded machine.
const BOUND: Duration = Duration::from_secs(20);
/// How long a start waits for an answer here.
const PATIENCE: [(&str, &str); 4] = [
    ("HEADWAY_LOG_CONNECT_TIMEOUT_MS", "1500"),
    ("HEADWAY_SINK_S3_CONNECT_TIMEOUT_MS", "1500"),
    ("HEADWAY_SINK_OPENSEARCH_CONNECT_TIMEOUT_MS", "1500"),
    ("HEADWAY_SINK_S3_ACCESS_KEY_ID", "key"),
];

/// Runs binaries with settings, and holds what each says against words.
#[track_caller]
fn refused(commands: &[&[&str]], settings: &[(&str, &str)], code: i32, words: &[&str]) {
    let pipeline = Pipeline::embedded();
    let csv = generate(pipeline.folder.path(), 20, 1);
    for command in commands {
        let arguments: Vec<&str> = command[1..]
            .iter()
            .map(|argument| match *argument {
                "CSV" => csv.to_str().unwrap(),
                other => other,
            })
            .collect();
        let settings: Vec<_> = PATIENCE
            .into_iter()
            .chain([("HEADWAY_SINK_S3_SECRET_ACCESS_KEY", "secret")])
            .chain(settings.iter().copied())
            .collect();
        let began = Instant::now();
        let output = pipeline.with(command[0], &arguments, &settings);
        let took = began.elapsed();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{command:?}: {said}");
        assert!(took < BOUND, "{command:?} took {took:?}");
        let (_, error) = said
            .split_once("error: ")
            .unwrap_or_else(|| panic!("{command:?}: {said}"));
        for word in words {
            assert!(
                error.contains(word),
                "{command:?} does not say {word:?}: {error}"
            );
        }
    }
}

const EVERYONE: [&[&str]; 6] = [
    &["producer", "CSV"],
    &["processor", "--once"],
    &["sink-s3", "--once"],
    &["sink-opensearch", "--once"],
    &["headway", "setup"],
    &["headway", "audit"],
];

#[test]
fn brokers_that_are_missing_or_something_else_are_named_with_what_to_do() {
    let at = |address: &str, commands: &[&[&str]], words: &[&str]| {
        let settings = [
            ("HEADWAY_LOG_KIND", "kafka"),
            ("HEADWAY_LOG_BROKERS", address),
        ];
        refused(commands, &settings, 1, &[&[address], words].concat());
    };
    let missing = nobody().to_string();
    at(
        &missing,
        &EVERYONE,
        &[
            "Connection refused",
            "start a broker there, or correct log.brokers",
        ],
    );
    let one = &EVERYONE[..1];
    at(
        "nowhere.invalid:9092",
        one,
        &["name is not known: correct log.brokers"],
    );
    let another = [
        "security.protocol",
        "HEADWAY_LOG_CLIENT_SECURITY_PROTOCOL",
        "log.brokers",
    ];
    at(&closing().to_string(), one, &another);
    at(&answering(400, "no").to_string(), one, &another);
}

#[test]
fn settings_of_the_log_that_no_client_can_be_made_of_are_usage_errors() {
    let kafka = ("HEADWAY_LOG_KIND", "kafka");
    let (address, tls) = (
        ("HEADWAY_LOG_BROKERS", "nowhere"),
        ("HEADWAY_LOG_CLIENT_SECURITY_PROTOCOL", "nonsense"),
    );
    let services = &EVERYONE[..4];
    refused(
        services,
        &[kafka, address],
        2,
        &["\"nowhere\"", "host:port"],
    );
    refused(services, &[kafka, tls], 2, &["security.protocol"]);
}

/// What needs the registry from its start on, and what asks it for people.
const REGISTRY: [&[&str]; 6] = [
    &["producer", "CSV"],
    &["processor", "--once"],
    &["sink-s3", "--once"],
    &["sink-opensearch", "--once"],
    &["headway", "setup"],
    &["schemas", "list"],
];

#[test]
fn a_registry_that_is_missing_refuses_or_is_another_server_is_named_with_what_to_do() {
    let at = |address: &str, commands: &[&[&str]], words: &[&str]| {
        let settings = [
            ("HEADWAY_REGISTRY_KIND", "http"),
            ("HEADWAY_REGISTRY_URL", address),
        ];
        refused(commands, &settings, 1, &[&[address], words].concat());
    };
    let http = |address: SocketAddr| format!("http://{address}");
    let url = |status, body| http(answering(status, body));
    at(
        &http(nobody()),
        &REGISTRY,
        &["Connection refused", "start it, or correct registry.url"],
    );
    let unauthorised = url(401, r#"{"error_code":40101,"message":"Unauthorized"}"#);
    at(
        &unauthorised,
        &REGISTRY,
        &["HTTP 401", "registry.username", "registry.password"],
    );
    let two = &[REGISTRY[0], REGISTRY[5]][..];
    at(
        &url(500, r#"{"error_code":50001,"message":"store broken"}"#),
        two,
        &["HTTP 500", "store broken", "registry.url"],
    );
    at(
        &url(200, "<html>"),
        two,
        &["no schema registry; correct registry.url"],
    );
    at(
        &url(404, "<html>"),
        two,
        &["HTTP 404", "correct registry.url, with the path"],
    );
    at(
        "http://nowhere.invalid:8081",
        two,
        &["name is not known: correct registry.url"],
    );
    at(
        &format!("https://{}", answering(400, "no")),
        two,
        &["begin registry.url with http://"],
    );
    at(
        &http(closing()),
        two,
        &["if it speaks TLS, begin registry.url with https://"],
    );
    let unreadable = [
        ("HEADWAY_REGISTRY_KIND", "http"),
        ("HEADWAY_REGISTRY_CA_FILE", "nowhere.pem"),
    ];
    refused(
        &[REGISTRY[0]],
        &unreadable,
        2,
        &["registry.ca_file nowhere.pem can't be read"],
    );
}

#[test]
fn a_store_that_is_missing_refuses_or_is_another_server_is_named_with_what_to_do() {
    let at = |address: &str, words: &[&str]| {
        let settings = [
            ("HEADWAY_SINK_S3_URL", "s3://bucket/lake"),
            ("HEADWAY_SINK_S3_ENDPOINT", address),
        ];
        refused(
            &[&["sink-s3", "--once"]],
            &settings,
            1,
            &[&[address], words].concat(),
        );
    };
    let http = |address: SocketAddr| format!("http://{address}");
    let code = |status, body| http(answering(status, body));
    at(
        &http(nobody()),
        &["start the server, or correct sink_s3.endpoint"],
    );
    at(
        "http://nowhere.invalid:9000",
        &["name is not known; correct sink_s3.endpoint"],
    );
    at(
        &http(closing()),
        &["correct sink_s3.endpoint (and its http:// or https://)"],
    );
    at(
        &code(404, "<html>"),
        &["no S3 server; correct sink_s3.endpoint"],
    );
    at(
        &format!("https://{}", answering(400, "no")),
        &["begin sink_s3.endpoint with http://"],
    );
    at(
        &code(404, "<Error><Code>NoSuchBucket</Code></Error>"),
        &["create it, or correct sink_s3.url"],
    );
    at(
        &code(403, "<Error><Code>InvalidAccessKeyId</Code></Error>"),
        &["sink_s3.access_key_id"],
    );
    at(
        &code(403, "<Error><Code>SignatureDoesNotMatch</Code></Error>"),
        &["sink_s3.secret_access_key"],
    );
    at(
        &code(403, "<Error><Code>AccessDenied</Code></Error>"),
        &["s3:PutObject"],
    );
    at(
        &code(
            400,
            "<Error><Code>AuthorizationHeaderMalformed</Code></Error>",
        ),
        &["set sink_s3.region"],
    );
}

#[test]
fn an_audit_does_not_take_another_server_for_an_empty_lake() {
    let pipeline = Pipeline::embedded();
    let created = pipeline.with("headway", &["setup"], &[]);
    assert!(created.status.success(), "{}", text(&created.stderr));
    let address = format!("http://{}", answering(200, "<html></html>"));
    let settings = [
        PATIENCE[3],
        ("HEADWAY_SINK_S3_SECRET_ACCESS_KEY", "secret"),
        ("HEADWAY_SINK_S3_URL", "s3://bucket/lake"),
        ("HEADWAY_SINK_S3_ENDPOINT", address.as_str()),
    ];
    let output = pipeline.with("headway", &["audit", "--no-documents"], &settings);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    let (_, error) = said.split_once("error: ").unwrap();
    for word in ["the lake can't be read", "correct sink_s3.endpoint"] {
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn an_opensearch_that_is_missing_refuses_or_is_another_server_is_named_with_what_to_do() {
    let at = |address: &str, words: &[&str]| {
        let settings = [("HEADWAY_SINK_OPENSEARCH_URL", address)];
        let commands: [&[&str]; 2] = [
            &["sink-opensearch", "--once"],
            &["sink-opensearch", "setup"],
        ];
        refused(&commands, &settings, 1, &[&[address], words].concat());
    };
    let http = |address: SocketAddr| format!("http://{address}");
    let code = |status, body| http(answering(status, body));
    at(
        &http(nobody()),
        &[
            "Connection refused",
            "start it, or correct sink_opensearch.url",
        ],
    );
    at(
        "http://nowhere.invalid:9200",
        &["name is not known: correct sink_opensearch.url"],
    );
    at(
        &code(401, "Unauthorized"),
        &[
            "HTTP 401",
            "sink_opensearch.username",
            "sink_opensearch.password",
        ],
    );
    at(
        &code(200, "<html>"),
        &["not to be OpenSearch: correct sink_opensearch.url"],
    );
    at(
        &code(404, "<html>"),
        &["not to be OpenSearch: correct sink_opensearch.url"],
    );
    at(
        &code(500, "broken"),
        &["HTTP 500: broken", "correct sink_opensearch.url"],
    );
    at(
        &format!("https://{}", answering(400, "no")),
        &["begin sink_opensearch.url with http://"],
    );
    at(
        &http(closing()),
        &["if it speaks TLS, begin sink_opensearch.url with https://"],
    );
}

#[test]
fn a_missing_salt_is_named_with_its_setting() {
    let pipeline = Pipeline::embedded();
    let csv = generate(pipeline.folder.path(), 20, 1);
    let sent = pipeline.with(
        "producer",
        &[csv.to_str().unwrap(), "--create-topics", "1"],
        &[],
    );
    assert!(sent.status.success(), "{}", text(&sent.stderr));
    let none = [("HEADWAY_PROCESSOR_MASK_SALT", "")];
    let output = pipeline.with("processor", &["--once"], &none);
    pipeline.refused(
        &output,
        &["processor.mask_salt", "HEADWAY_PROCESSOR_MASK_SALT"],
    );
}
