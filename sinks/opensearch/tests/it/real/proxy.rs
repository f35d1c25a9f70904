//! A proxy before OpenSearch that can be told to fail: it refuses, breaks off, answers after it has stored, asks for a
//! password; with TLS or without.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::http::{self, Request};

/// What the proxy does with a bulk.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    /// Answers with this status, and passes nothing on.
    Refuse(u16),
    /// Passes it on, and breaks the connection off instead of answering.
    BreakAfter,
    /// Breaks the connection off, and passes nothing on.
    BreakBefore,
    /// Passes every second operation on; the others fail with this status.
    Half(u16),
    /// Refuses what has more than so many operations.
    TooLarge(usize),
}

/// What to do with the nth bulk.
pub type Script = dyn Fn(usize) -> Fault + Send + Sync;

struct Shared {
    upstream: String,
    script: Box<Script>,
    password: Option<String>,
    tls: Option<Arc<ServerConfig>>,
    bulks: AtomicUsize,
    sizes: Mutex<Vec<usize>>,
    down: AtomicBool,
    closed: AtomicBool,
}

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    pub fn before(server: &str, script: impl Fn(usize) -> Fault + Send + Sync + 'static) -> Self {
        Self::start(server, Box::new(script), None, false)
    }

    /// With TLS, and a password: the value of the `authorization` header.
    pub fn guarded(server: &str, password: &str) -> Self {
        Self::start(
            server,
            Box::new(|_| Fault::None),
            Some(password.to_owned()),
            true,
        )
    }

    fn start(server: &str, script: Box<Script>, password: Option<String>, tls: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            upstream: server.trim_start_matches("http://").to_owned(),
            script,
            password,
            tls: tls.then(tls_config),
            bulks: AtomicUsize::new(0),
            sizes: Mutex::default(),
            down: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.closed.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || match &shared.tls {
                    None => serve(stream, &shared),
                    Some(config) => {
                        let connection = ServerConnection::new(Arc::clone(config)).unwrap();
                        serve(StreamOwned::new(connection, stream), &shared);
                    }
                });
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        let scheme = match self.shared.tls.is_some() {
            true => "https",
            false => "http",
        };
        format!("{scheme}://{}", self.address)
    }

    /// Breaks every connection off from now on, or serves again.
    pub fn down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
    }

    /// How many bulks came.
    pub fn bulks(&self) -> usize {
        self.shared.bulks.load(Ordering::SeqCst)
    }

    /// How many operations each bulk had.
    pub fn sizes(&self) -> Vec<usize> {
        self.shared.sizes.lock().unwrap().clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn tls_config() -> Arc<ServerConfig> {
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    Arc::new(config)
}

/// Serves one connection to its end.
fn serve(stream: impl Read + Write, shared: &Shared) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = http::read(&mut reader) {
        if shared.down.load(Ordering::SeqCst) {
            return;
        }
        let Some((status, body)) = answer(shared, &request) else {
            return;
        };
        if http::answer(reader.get_mut(), status, &body).is_none() {
            return;
        }
    }
}

/// Nothing: the connection is to be broken off.
fn answer(shared: &Shared, request: &Request) -> Option<(u16, Vec<u8>)> {
    if shared.password.is_some() && shared.password != request.authorization {
        return Some((401, b"Unauthorized".to_vec()));
    }
    let pass = |body: &[u8]| call(&shared.upstream, &request.method, &request.path, body);
    if request.path != "/_bulk" {
        return pass(&request.body);
    }
    let lines: Vec<&[u8]> = request
        .body
        .split_inclusive(|byte| *byte == b'\n')
        .collect();
    let operations: Vec<Vec<u8>> = lines.chunks(2).map(<[_]>::concat).collect();
    shared.sizes.lock().unwrap().push(operations.len());
    let number = shared.bulks.fetch_add(1, Ordering::SeqCst);
    match (shared.script)(number) {
        Fault::None => pass(&request.body),
        Fault::Refuse(status) => Some((status, b"no".to_vec())),
        Fault::BreakBefore => None,
        Fault::BreakAfter => {
            pass(&request.body);
            None
        }
        Fault::TooLarge(most) if operations.len() > most => Some((413, Vec::new())),
        Fault::TooLarge(_) => pass(&request.body),
        Fault::Half(status) => {
            let (mut passed, mut failed) = (Vec::new(), Vec::new());
            for (at, operation) in operations.iter().enumerate() {
                match at % 2 {
                    0 => passed.extend_from_slice(operation),
                    _ => failed.push(at),
                }
            }
            let (code, body) = pass(&passed)?;
            let mut answer: Value = serde_json::from_slice(&body).ok()?;
            let items = answer["items"].as_array_mut()?;
            for at in failed {
                let error = json!({"type": "rejected_execution_exception", "reason": "busy"});
                items.insert(at, json!({"index": {"status": status, "error": error}}));
            }
            Some((code, answer.to_string().into_bytes()))
        }
    }
}

/// One request over a connection of its own; its status and body.
pub fn call(server: &str, method: &str, path: &str, body: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(server).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: {server}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).ok()?;
    stream.write_all(body).ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let status = std::str::from_utf8(answer.get(9..12)?).ok()?.parse().ok()?;
    Some((status, answer.split_off(end + 4)))
}
