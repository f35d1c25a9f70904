//! A small HTTP server that answers as OpenSearch does: it keeps documents with external versions, and can be told to
//! refuse.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::http::{self, Request};
use crate::support::Versions;

/// One operation of a bulk.
#[derive(Clone, Debug)]
pub struct Operation {
    pub index: String,
    pub id: String,
    pub version: i64,
    pub source: Value,
}

/// One `_bulk` request.
#[derive(Clone, Debug)]
pub struct Bulk {
    /// Its place among all, from 0.
    pub number: usize,
    pub bytes: usize,
    pub operations: Vec<Operation>,
    /// The `authorization` header.
    pub authorization: Option<String>,
}

/// What the server does with a bulk.
pub enum Reply {
    /// Stores it.
    Take,
    /// Stores the operations for which this gives nothing; the others get the status and the type of error.
    Items(fn(&Bulk, &Operation) -> Option<(u16, &'static str)>),
    /// Answers the whole call so, and stores nothing.
    Refuse(u16, String),
    /// Stores it, and breaks the connection off before it answers.
    TakeAndBreak,
}

pub type Script = dyn Fn(&Bulk) -> Reply + Send + Sync;

struct Shared {
    script: Box<Script>,
    bulks: Mutex<Vec<Bulk>>,
    documents: Mutex<BTreeMap<(String, String), Operation>>,
    /// Templates by name, and the mappings of the indices made from them.
    templates: Mutex<BTreeMap<String, Value>>,
    indices: Mutex<BTreeMap<String, Value>>,
    closed: AtomicBool,
}

pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

impl Server {
    pub fn start(script: impl Fn(&Bulk) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            bulks: Mutex::default(),
            documents: Mutex::default(),
            templates: Mutex::default(),
            indices: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if serving.closed.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&serving);
                std::thread::spawn(move || while serve(&stream, &shared).is_some() {});
            }
        });
        Self { address, shared }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn bulks(&self) -> Vec<Bulk> {
        self.shared.bulks.lock().unwrap().clone()
    }

    pub fn documents(&self) -> Vec<Operation> {
        self.shared
            .documents
            .lock()
            .unwrap()
            .values()
            .cloned()
            .collect()
    }

    pub fn versions(&self) -> Versions {
        self.documents()
            .into_iter()
            .map(|found| ((found.index, found.id), found.version))
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// One request; nothing when the connection is over.
fn serve(stream: &TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let request = http::read(&mut reader)?;
    let path = request.path.as_str();
    let (status, answer) = if path == "/_bulk" {
        bulk(shared, &request.body, request.authorization)?
    } else if path.contains("/_refresh") {
        (
            200,
            json!({"_shards": {"total": 1, "successful": 1, "failed": 0}}).to_string(),
        )
    } else if let Some(pattern) = path.split('/').nth(1).filter(|_| path.contains("/_count")) {
        let prefix = pattern.trim_end_matches('*').to_owned();
        let documents = shared.documents.lock().unwrap();
        let count = documents
            .keys()
            .filter(|(index, _)| index.starts_with(&prefix))
            .count();
        (
            200,
            json!({"count": count, "_shards": {"total": 1, "successful": 1, "failed": 0}})
                .to_string(),
        )
    } else {
        shared.manage(&request)
    };
    http::answer(&mut &*stream, status, answer.as_bytes())
}

fn bulk(shared: &Shared, body: &[u8], authorization: Option<String>) -> Option<(u16, String)> {
    let mut lines = body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let mut operations = Vec::new();
    while let Some(line) = lines.next() {
        let action: Value = serde_json::from_slice(line).unwrap();
        let action = &action["index"];
        assert_eq!(action["version_type"], "external", "{action}");
        operations.push(Operation {
            index: action["_index"].as_str().unwrap().to_owned(),
            id: action["_id"].as_str().unwrap().to_owned(),
            version: action["version"].as_i64().unwrap(),
            source: serde_json::from_slice(lines.next().unwrap()).unwrap(),
        });
    }
    let bulk = {
        let mut bulks = shared.bulks.lock().unwrap();
        let number = bulks.len();
        bulks.push(Bulk {
            number,
            bytes: body.len(),
            operations,
            authorization,
        });
        bulks.last().unwrap().clone()
    };
    let mut fail: fn(&Bulk, &Operation) -> Option<(u16, &'static str)> = |_, _| None;
    let mut broken = false;
    match (shared.script)(&bulk) {
        Reply::Take => {}
        Reply::Items(items) => fail = items,
        Reply::Refuse(status, body) => return Some((status, body)),
        Reply::TakeAndBreak => broken = true,
    }
    let mut items = Vec::new();
    for operation in &bulk.operations {
        let (status, kind) = fail(&bulk, operation).unwrap_or_else(|| shared.store(operation));
        let mut item = json!({"_index": operation.index, "_id": operation.id, "status": status});
        if status >= 300 {
            item["error"] = json!({"type": kind, "reason": format!("{kind} of {}", operation.id)});
        }
        items.push(json!({"index": item}));
    }
    let errors = items.iter().any(|item| item["index"]["error"].is_object());
    (!broken).then(|| {
        (
            200,
            json!({"took": 1, "errors": errors, "items": items}).to_string(),
        )
    })
}

impl Shared {
    /// Templates and indices.
    fn manage(&self, request: &Request) -> (u16, String) {
        let (method, body) = (request.method.as_str(), request.body.as_slice());
        let parts: Vec<&str> = request.path.trim_start_matches('/').split('/').collect();
        let done = || (200, json!({"acknowledged": true}).to_string());
        let mut templates = self.templates.lock().unwrap();
        let mut indices = self.indices.lock().unwrap();
        match (method, &parts[..]) {
            ("PUT", ["_index_template", name]) => {
                templates.insert((*name).to_owned(), serde_json::from_slice(body).unwrap());
                done()
            }
            ("GET", ["_index_template", name]) => match templates.get(*name) {
                Some(body) => {
                    let found = json!({"name": name, "index_template": body});
                    (200, json!({"index_templates": [found]}).to_string())
                }
                None => (404, String::new()),
            },
            ("GET", [index, "_mapping"]) => match indices.get(*index) {
                Some(mappings) => (200, json!({*index: {"mappings": mappings}}).to_string()),
                None => (404, String::new()),
            },
            ("PUT", [index]) => {
                let template = templates.values().next().unwrap();
                indices.insert(
                    (*index).to_owned(),
                    template["template"]["mappings"].clone(),
                );
                done()
            }
            _ => (404, String::new()),
        }
    }

    fn store(&self, operation: &Operation) -> (u16, &'static str) {
        let mut documents = self.documents.lock().unwrap();
        let key = (operation.index.clone(), operation.id.clone());
        match documents.get(&key) {
            Some(there) if there.version >= operation.version => {
                (409, "version_conflict_engine_exception")
            }
            there => {
                let status = if there.is_some() { 200 } else { 201 };
                documents.insert(key, operation.clone());
                (status, "")
            }
        }
    }
}
