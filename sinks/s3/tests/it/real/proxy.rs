//! An HTTP proxy in front of a server, that delays, loses, refuses. One request for each connection.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is served.
    None,
    /// It is served this much later.
    Delay(Duration),
    /// It does not get to the server, and the connection breaks.
    Cut,
    /// The server does what it says, and the answer is lost: the connection breaks.
    LoseAnswer,
    /// The server does what it says, and no answer comes for as long as the client waits.
    HoldAnswer,
    /// It does not get to the server: the answer is that there is too much to do.
    SlowDown,
}

type Decide = Box<dyn FnMut(u64) -> Fault + Send>;

/// The proxy. Dropping it closes it.
pub struct Proxy {
    inner: Arc<Inner>,
    address: SocketAddr,
}

struct Inner {
    upstream: String,
    decide: Mutex<Decide>,
    puts: AtomicU64,
    faults: AtomicU64,
    open: AtomicBool,
    closed: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Proxy {
    /// A proxy to `host:port`. What happens to a put is decided by its number, from 0; other requests are served.
    pub fn new(upstream: &str, decide: impl FnMut(u64) -> Fault + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            inner: Arc::new(Inner {
                upstream: upstream.into(),
                decide: Mutex::new(Box::new(decide)),
                puts: AtomicU64::new(0),
                faults: AtomicU64::new(0),
                open: AtomicBool::new(true),
                closed: AtomicBool::new(false),
                connections: Mutex::new(Vec::new()),
            }),
        };
        proxy.accept(listener);
        proxy
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many puts met a fault.
    pub fn faults(&self) -> u64 {
        self.inner.faults.load(Ordering::SeqCst)
    }

    /// Breaks every connection, and refuses others from now on.
    pub fn down(&self) {
        self.inner.open.store(false, Ordering::SeqCst);
        for connection in self.inner.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // the listener looks for the flag at each connection
        let _ = TcpStream::connect(self.address);
    }

    /// Takes connections again, at the same address.
    pub fn up(&self) {
        self.inner.open.store(true, Ordering::SeqCst);
        let listener = loop {
            match TcpListener::bind(self.address) {
                Ok(listener) => break listener,
                Err(_) => thread::sleep(Duration::from_millis(20)),
            }
        };
        self.accept(listener);
    }

    fn accept(&self, listener: TcpListener) {
        let inner = self.inner.clone();
        thread::spawn(move || {
            for connection in listener.incoming() {
                if !inner.open.load(Ordering::SeqCst) || inner.closed.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let inner = inner.clone();
                thread::spawn(move || {
                    let Ok(end) = connection.try_clone() else {
                        return;
                    };
                    // what goes wrong with a connection, its client sees
                    let _ = inner.serve(connection);
                    // the list of connections keeps it open otherwise
                    let _ = end.shutdown(Shutdown::Both);
                });
            }
        });
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.inner.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Inner {
    fn serve(&self, mut client: TcpStream) -> std::io::Result<()> {
        self.connections.lock().unwrap().push(client.try_clone()?);
        let Some(request) = read_request(&client)? else {
            return Ok(());
        };
        let fault = if request.starts_with(b"PUT ") {
            (self.decide.lock().unwrap())(self.puts.fetch_add(1, Ordering::SeqCst))
        } else {
            Fault::None
        };
        if fault != Fault::None {
            self.faults.fetch_add(1, Ordering::SeqCst);
        }
        match fault {
            Fault::Cut => return Ok(()),
            Fault::SlowDown => {
                let body = "<?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
                return write!(
                    client,
                    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
            }
            Fault::Delay(delay) => thread::sleep(delay),
            Fault::None | Fault::LoseAnswer | Fault::HoldAnswer => {}
        }
        let mut server = TcpStream::connect(&self.upstream)?;
        server.write_all(&request)?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer)?;
        match fault {
            Fault::LoseAnswer => Ok(()),
            Fault::HoldAnswer => {
                // until the client goes
                let mut nothing = [0];
                client.read(&mut nothing).map(drop)
            }
            _ => client.write_all(&answer),
        }
    }
}

/// A whole request, told to be the last of its connection.
fn read_request(client: &TcpStream) -> std::io::Result<Option<Vec<u8>>> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut request = Vec::new();
    let mut length = 0;
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
        if let Some(value) = text.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        assert!(
            !text.starts_with("transfer-encoding:"),
            "the proxy does not know chunks"
        );
        if text.trim().is_empty() {
            break;
        }
        if !text.starts_with("connection:") {
            request.extend_from_slice(&line);
        }
    }
    request.extend_from_slice(b"Connection: close\r\n\r\n");
    let head = request.len();
    request.resize(head + length, 0);
    reader.read_exact(&mut request[head..])?;
    Ok(Some(request))
}
