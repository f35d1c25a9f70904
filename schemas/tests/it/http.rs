//! The HTTP client against a server that speaks Confluent's routes, and misbehaves when told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use schemas::{
    Admin, Credentials, EmbeddedRegistry, HttpRegistry, HttpRegistryOptions, Registry,
    RegistryError,
};

const V1: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
const V2: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"}]}"#;
const BAD: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

/// What the server does with a request.
#[derive(Clone, Debug, PartialEq)]
enum Mode {
    Serve,
    /// This status and body, whatever was asked.
    Answer(u16, &'static str),
    /// Closes the connection.
    Hang,
    /// Says nothing.
    Silent,
    /// Only with this value of the Authorization header.
    Only(&'static str),
}

struct Server {
    address: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, requests) = (
            Arc::new(Mutex::new(Mode::Serve)),
            Arc::new(AtomicUsize::new(0)),
        );
        let server = Self {
            address,
            mode: Arc::clone(&mode),
            requests: Arc::clone(&requests),
        };
        let registry = Arc::new(EmbeddedRegistry::in_memory());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                requests.fetch_add(1, Ordering::SeqCst);
                let (mode, registry) = (mode.lock().unwrap().clone(), Arc::clone(&registry));
                std::thread::spawn(move || serve(stream, mode, &registry));
            }
        });
        server
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(mut stream: TcpStream, mode: Mode, registry: &EmbeddedRegistry) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap() == 0 || header == "\r\n" {
            break;
        }
        let (name, value) = header.split_once(':').unwrap();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => authorization = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut parts = line.split(' ');
    let (method, path) = (parts.next().unwrap(), parts.next().unwrap());
    let (status, answer) = match mode {
        Mode::Serve => route(method, path, &body, registry),
        Mode::Answer(status, body) => (status, body.to_owned()),
        Mode::Hang => return,
        Mode::Silent => {
            // Until the client has had enough.
            let _ = reader.read(&mut [0]);
            return;
        }
        Mode::Only(wanted) if authorization == wanted => route(method, path, &body, registry),
        Mode::Only(_) => error(401, 401, "Unauthorized"),
    };
    let head = format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        answer.len()
    );
    let _ = stream.write_all((head + &answer).as_bytes());
}

fn error(status: u16, code: u32, message: &str) -> (u16, String) {
    (
        status,
        serde_json::json!({"error_code": code, "message": message}).to_string(),
    )
}

/// The routes of Confluent's API that a client of ours needs.
fn route(method: &str, path: &str, body: &[u8], registry: &EmbeddedRegistry) -> (u16, String) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let path = path.trim_matches('/');
    let parts: Vec<&str> = path.split('/').collect();
    match (method, parts.as_slice()) {
        ("GET", ["schemas", "ids", "99"]) => (
            200,
            serde_json::json!({"schemaType": "PROTOBUF", "schema": "syntax = \"proto3\";"})
                .to_string(),
        ),
        ("GET", ["schemas", "ids", "98"]) => {
            let schema =
                r#"{"type":"record","name":"a.Outer","fields":[{"name":"in","type":"b.Inner"}]}"#;
            let references =
                [serde_json::json!({"name": "b.Inner", "subject": "inner", "version": 3})];
            (
                200,
                serde_json::json!({"schema": schema, "references": references}).to_string(),
            )
        }
        ("GET", ["subjects", "inner", "versions", "3"]) => {
            let schema =
                r#"{"type":"record","name":"b.Inner","fields":[{"name":"x","type":"int"}]}"#;
            (
                200,
                serde_json::json!({"subject": "inner", "version": 3, "id": 50, "schema": schema})
                    .to_string(),
            )
        }
        ("GET", ["schemas", "ids", id]) => match registry.by_id(id.parse().unwrap()) {
            Ok(schema) => (200, serde_json::json!({"schema": *schema}).to_string()),
            Err(_) => error(404, 40403, "Schema not found"),
        },
        // Two at once.
        ("GET", ["subjects"]) => {
            let offset = query.strip_prefix("offset=").unwrap_or("0");
            let subjects = registry.subjects().unwrap().into_iter();
            let page: Vec<_> = subjects.skip(offset.parse().unwrap()).take(2).collect();
            (200, serde_json::json!(page).to_string())
        }
        ("GET", ["subjects", subject, "versions", "latest"]) => match registry
            .latest(subject)
            .unwrap()
        {
            Some((id, schema)) => (
                200,
                serde_json::json!({"subject": subject, "version": 1, "id": id, "schema": *schema})
                    .to_string(),
            ),
            None => error(404, 40401, "Subject not found."),
        },
        // Whether a schema is among the versions. The registry behind answers that by number only.
        ("POST", ["subjects", _]) => {
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            match body["schema"].as_str().unwrap() {
                V1 => (200, serde_json::json!({"id": 1, "version": 1}).to_string()),
                _ => error(404, 40403, "Schema not found"),
            }
        }
        ("POST", ["subjects", subject, "versions"]) => {
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            match registry.register(subject, body["schema"].as_str().unwrap()) {
                Ok(id) => (200, serde_json::json!({"id": id}).to_string()),
                Err(RegistryError::Incompatible { .. }) => {
                    error(409, 409, "Schema being registered is incompatible")
                }
                Err(e) => error(422, 42201, &e.to_string()),
            }
        }
        _ => (404, "<html>no such page</html>".to_owned()),
    }
}

/// A clock that is moved by hand.
#[derive(Clone)]
struct Clock(Instant, Arc<AtomicU64>);

impl Clock {
    fn new() -> Self {
        Self(Instant::now(), Arc::default())
    }

    fn advance(&self, by: Duration) {
        self.1.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }
}

/// How long an answer is waited for: on a busy machine too, one that comes is in time. Of a server that says nothing there is
/// none to wait for.
fn patience(mode: &Mode) -> Duration {
    match mode {
        Mode::Silent => Duration::from_millis(300),
        _ => Duration::from_secs(60),
    }
}

fn client(urls: &[String], clock: &Clock) -> HttpRegistry {
    patient_client(urls, clock, patience(&Mode::Serve))
}

fn patient_client(urls: &[String], clock: &Clock, timeout: Duration) -> HttpRegistry {
    let Clock(start, passed) = clock.clone();
    let options = HttpRegistryOptions::new(urls.to_vec())
        .with_timeout(timeout)
        .with_clock(move || start + Duration::from_millis(passed.load(Ordering::SeqCst)));
    HttpRegistry::new(options).unwrap()
}

#[test]
fn it_does_what_the_embedded_registry_does_and_asks_once() {
    let server = Server::start();
    let registry = client(&[server.url()], &Clock::new());
    assert_eq!(registry.latest("t-value").unwrap(), None);
    assert_eq!(registry.register("t-value", V1).unwrap(), 1);
    assert_eq!(registry.register("t-value", V2).unwrap(), 2);
    assert_eq!(registry.latest("t-value").unwrap().unwrap(), (2, V2.into()));
    let asked = server.requests();
    assert_eq!(&*registry.by_id(1).unwrap(), V1);
    for _ in 0..100 {
        assert_eq!(&*registry.by_id(1).unwrap(), V1);
        assert_eq!(registry.register("t-value", V1).unwrap(), 1);
    }
    assert_eq!(server.requests(), asked + 1);
}

#[test]
fn an_older_version_keeps_its_number() {
    let server = Server::start();
    client(&[server.url()], &Clock::new())
        .register("t-value", V1)
        .unwrap();
    client(&[server.url()], &Clock::new())
        .register("t-value", V2)
        .unwrap();
    // Readers of it can't read the last version, but it is there.
    let registry = client(&[server.url()], &Clock::new());
    assert_eq!(registry.register("t-value", V1).unwrap(), 1);
}

#[test]
fn all_subjects_are_listed_whether_a_registry_says_them_at_once_or_in_pages() {
    let server = Server::start();
    let registry = client(&[server.url()], &Clock::new());
    assert!(registry.subjects().unwrap().is_empty());
    let names = ["a-value", "b-value", "c-value", "d-value", "e-value"];
    for name in names {
        registry.register(name, V1).unwrap();
    }
    assert_eq!(registry.subjects().unwrap(), names);
    server.set(Mode::Answer(200, r#"["b-value","a-value"]"#));
    assert_eq!(registry.subjects().unwrap(), names[..2]);
}

#[test]
fn refusals_are_told_apart_and_name_the_field() {
    let server = Server::start();
    let registry = client(&[server.url()], &Clock::new());
    registry.register("t-value", V1).unwrap();
    let refused = registry.register("t-value", BAD).unwrap_err();
    assert!(
        matches!(&refused, RegistryError::Incompatible { subject, .. } if subject == "t-value")
    );
    assert!(
        refused
            .to_string()
            .contains("field `a`: int was written, which string can't read"),
        "{refused}"
    );
    assert!(matches!(
        registry.register("t-value", "{"),
        Err(RegistryError::Invalid { .. })
    ));
    assert!(matches!(
        registry.by_id(7),
        Err(RegistryError::Unknown { id: 7 })
    ));
    let other = registry.by_id(99).unwrap_err();
    assert!(
        matches!(&other, RegistryError::Invalid { .. }) && other.to_string().contains("PROTOBUF"),
        "{other}"
    );
}

#[test]
fn schemas_that_refer_to_others_are_made_whole() {
    let server = Server::start();
    let schema = client(&[server.url()], &Clock::new()).by_id(98).unwrap();
    let parsed = crate::oracle::parse(&schema);
    assert!(
        apache_avro::schema::ResolvedSchema::new(&parsed).is_ok(),
        "{schema}"
    );
}

#[test]
fn only_the_registry_itself_can_say_that_a_number_is_unknown() {
    for mode in [
        Mode::Answer(404, "<html>no such page</html>"),
        Mode::Answer(404, r#"{"error_code":404,"message":"HTTP 404 Not Found"}"#),
        Mode::Answer(500, r#"{"error_code":50001,"message":"store"}"#),
        Mode::Answer(503, ""),
        Mode::Answer(200, "<html>login</html>"),
        Mode::Hang,
        Mode::Silent,
    ] {
        let server = Server::start();
        server.set(mode.clone());
        let client = patient_client(&[server.url()], &Clock::new(), patience(&mode));
        let answer = client.by_id(1);
        assert!(
            matches!(answer, Err(RegistryError::Unavailable { .. })),
            "{mode:?}: {answer:?}"
        );
    }
}

#[test]
fn a_dead_registry_is_asked_less_and_less_often_and_found_again() {
    let server = Server::start();
    let clock = Clock::new();
    let registry = client(&[server.url()], &clock);
    registry.register("t-value", V1).unwrap();
    server.set(Mode::Answer(503, ""));
    let before = server.requests();
    // Asked every 10 ms for 10 minutes.
    for _ in 0..60_000 {
        assert!(matches!(
            registry.by_id(1),
            Err(RegistryError::Unavailable { .. })
        ));
        clock.advance(Duration::from_millis(10));
    }
    let asked = server.requests() - before;
    assert!((20..40).contains(&asked), "{asked}");
    server.set(Mode::Serve);
    clock.advance(Duration::from_secs(30));
    assert_eq!(&*registry.by_id(1).unwrap(), V1);
}

#[test]
fn an_unknown_number_is_asked_for_again_after_a_while() {
    let server = Server::start();
    let clock = Clock::new();
    let registry = client(&[server.url()], &clock);
    for _ in 0..1000 {
        assert!(matches!(
            registry.by_id(1),
            Err(RegistryError::Unknown { id: 1 })
        ));
    }
    assert_eq!(server.requests(), 1);
    client(&[server.url()], &clock)
        .register("t-value", V1)
        .unwrap();
    clock.advance(Duration::from_secs(31));
    assert_eq!(&*registry.by_id(1).unwrap(), V1);
}

#[test]
fn the_next_address_answers_for_a_dead_one() {
    let (dead, server) = (Server::start(), Server::start());
    dead.set(Mode::Hang);
    let registry = client(&[dead.url(), server.url()], &Clock::new());
    assert_eq!(registry.register("t-value", V1).unwrap(), 1);
    let registry = client(&[server.url(), dead.url()], &Clock::new());
    assert!(
        matches!(registry.by_id(9), Err(RegistryError::Unknown { id: 9 })),
        "the living one's word counts"
    );
}

#[test]
fn credentials_are_sent_and_never_shown() {
    let server = Server::start();
    let basic = Mode::Only("Basic dXNlcjpoNW50ZXIy");
    let credentials = Credentials::Basic {
        user: "user".into(),
        password: "h5nter2".to_owned(),
    };
    let in_url = server.url().replace("http://", "http://user:h5nter2@");
    let cases = [
        (
            basic.clone(),
            HttpRegistryOptions::new([server.url()]).with_credentials(credentials),
        ),
        (basic, HttpRegistryOptions::new([in_url.clone()])),
        (
            Mode::Only("Bearer h5nter2"),
            HttpRegistryOptions::new([server.url()])
                .with_credentials(Credentials::Bearer("h5nter2".to_owned())),
        ),
    ];
    for (mode, options) in cases {
        server.set(mode);
        let clock = Clock::new();
        let Clock(start, passed) = clock.clone();
        let options = options
            .with_clock(move || start + Duration::from_millis(passed.load(Ordering::SeqCst)));
        let mut shown = format!("{options:?}");
        let with = |mode: &Mode| {
            let options = options.clone().with_timeout(patience(mode));
            HttpRegistry::new(options).unwrap()
        };
        let registry = with(&Mode::Serve);
        shown += &format!("{registry:?}");
        assert_eq!(registry.latest("t-value").unwrap(), None);
        for mode in [
            Mode::Only("other"),
            Mode::Hang,
            Mode::Answer(500, ""),
            Mode::Answer(200, "x"),
            Mode::Silent,
        ] {
            server.set(mode.clone());
            clock.advance(Duration::from_secs(60));
            let impatient = with(&mode);
            let registry = match mode {
                Mode::Silent => &impatient,
                _ => &registry,
            };
            let error = registry.latest("t-value").unwrap_err();
            assert_eq!(
                mode == Mode::Only("other"),
                matches!(error, RegistryError::NotAllowed { .. }),
                "{error}"
            );
            shown += &format!("{error} {error:?}");
        }
        assert!(!shown.contains("h5nter2"), "{shown}");
    }
    let refused =
        HttpRegistry::new(HttpRegistryOptions::new(["ftp://user:h5nter2@host"])).unwrap_err();
    assert!(
        refused.to_string().contains("ftp://host") && !format!("{refused:?}").contains("h5nter2")
    );
    for url in [
        "user:h5nter2@host:8081",
        "",
        "http://user:h5nter2@",
        "http://h/?token=h5nter2",
    ] {
        let refused = HttpRegistry::new(HttpRegistryOptions::new([url])).unwrap_err();
        assert!(
            !format!("{refused} {refused:?}").contains("h5nter2"),
            "{refused:?}"
        );
    }
    assert!(HttpRegistry::new(HttpRegistryOptions::new(Vec::<String>::new())).is_err());
}

#[test]
fn it_may_be_made_used_and_dropped_inside_an_async_runtime() {
    let server = Server::start();
    let url = server.url();
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(async {
            let registry = client(&[url], &Clock::new());
            assert_eq!(registry.register("t-value", V1).unwrap(), 1);
            drop(registry);
        });
}
