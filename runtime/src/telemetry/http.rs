//! The HTTP edge: `/metrics`, `/health`, `/ready`, and what a part adds. It has a thread and a small runtime of its own,
//! so that workers that block can't hold it up.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::thread::JoinHandle;

use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Registry, TextEncoder};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Readiness, TelemetryError};

/// A running HTTP edge. Dropping it closes it.
#[derive(Debug)]
pub struct HttpEdge {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl HttpEdge {
    /// Listens on `address` (host:port; port 0 takes a free one) and serves `metrics`, `readiness`, and `more` routes.
    ///
    /// `more` must not name `/metrics`, `/health` or `/ready` again (axum refuses that by panicking).
    ///
    /// # Errors
    /// An address that can't be read or listened on.
    pub fn start(
        address: &str,
        metrics: Registry,
        readiness: Readiness,
        more: Router,
    ) -> Result<Self, TelemetryError> {
        let unreadable = |source| TelemetryError::Address {
            address: address.into(),
            source,
        };
        let nothing = || unreadable(std::io::Error::other("the name has no address"));
        let wanted = address
            .to_socket_addrs()
            .map_err(unreadable)?
            .next()
            .ok_or_else(nothing)?;
        let listener = TcpListener::bind(wanted).map_err(|source| TelemetryError::Bind {
            address: wanted,
            source,
        })?;
        listener
            .set_nonblocking(true)
            .map_err(TelemetryError::Start)?;
        let address = listener.local_addr().map_err(TelemetryError::Start)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(TelemetryError::Start)?;
        let router = router(metrics, readiness).merge(more);
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = move || {
            let served = runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                // Open connections are dropped with the runtime: a scraper that keeps one alive must not hold up the end.
                tokio::select! {
                    served = axum::serve(listener, router) => served,
                    _ = stopped => Ok(()),
                }
            });
            if let Err(error) = served {
                tracing::error!(%error, %address, "the HTTP edge ended");
            }
        };
        let thread = std::thread::Builder::new()
            .name("http".into())
            .spawn(serve)
            .map_err(TelemetryError::Start)?;
        tracing::info!(%address, "serving /metrics, /health and /ready");
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for HttpEdge {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn router(metrics: Registry, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(encode).with_state(metrics))
        .route("/health", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/ready", get(report).with_state(readiness))
}

/// A page of JSON, indented for people, made anew for each request. `page` may block for a while.
pub fn json_page<T: serde::Serialize>(
    path: &str,
    page: impl Fn() -> T + Clone + Send + Sync + 'static,
) -> Router {
    let serve = async move || {
        let made = tokio::task::spawn_blocking(move || serde_json::to_string_pretty(&page()));
        match made.await {
            Ok(Ok(mut text)) => {
                text.push('\n');
                ([(header::CONTENT_TYPE, "application/json")], text).into_response()
            }
            Ok(Err(error)) => failed(&error),
            Err(error) => failed(&error),
        }
    };
    Router::new().route(path, get(serve))
}

/// What a page answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The media type of the body.
    pub content_type: &'static str,
    /// The body.
    pub body: String,
}

impl PageAnswer {
    /// An answer in JSON, which `body` already is.
    pub fn json(status: u16, body: String) -> Self {
        Self {
            status,
            content_type: "application/json",
            body,
        }
    }
}

/// A page that answers what its query string asks, made anew for each request. `answer` may block for a while.
pub fn asked_page(
    path: &str,
    answer: impl Fn(&BTreeMap<String, String>) -> PageAnswer + Clone + Send + Sync + 'static,
) -> Router {
    let serve = async move |Query(asked): Query<BTreeMap<String, String>>| {
        match tokio::task::spawn_blocking(move || answer(&asked)).await {
            Ok(PageAnswer {
                status,
                content_type,
                body,
            }) => {
                let status =
                    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
            }
            Err(error) => failed(&error),
        }
    };
    Router::new().route(path, get(serve))
}

fn failed(error: &dyn std::fmt::Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}

/// Prometheus' text format, version 0.0.4.
async fn encode(State(metrics): State<Registry>) -> Response {
    match TextEncoder::new().encode_to_string(&metrics.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => failed(&error),
    }
}

async fn report(State(readiness): State<Readiness>) -> Response {
    let (ready, report) = readiness.report();
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::io::{Read, Write};
    use std::net::TcpStream;

    use prometheus::IntCounter;
    use serde_json::Value;

    use super::*;

    fn get_path(address: SocketAddr, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head[9..12].parse().unwrap(),
            head.to_lowercase(),
            body.into(),
        )
    }

    #[test]
    fn metrics_health_readiness_and_added_routes_are_served() {
        let metrics = Registry::new();
        let rows = IntCounter::new("headway_test_rows_total", "Rows.").unwrap();
        metrics.register(Box::new(rows.clone())).unwrap();
        rows.inc_by(7);
        let readiness = Readiness::new();
        let (log, restore) = (readiness.condition("log"), readiness.condition("restore"));
        let more = Router::new()
            .route("/windows", get(|| async { "open" }))
            .merge(json_page("/page", || json!({"open": [7]})))
            .merge(asked_page("/asked", |asked| match asked.get("q") {
                Some(q) => PageAnswer::json(200, json!(q).to_string()),
                None => PageAnswer::json(400, "{}".into()),
            }));
        let edge = HttpEdge::start("127.0.0.1:0", metrics, readiness, more).unwrap();

        let (status, head, body) = get_path(edge.address(), "/metrics");
        assert_eq!(status, 200);
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        assert!(
            body.contains("# TYPE headway_test_rows_total counter\nheadway_test_rows_total 7\n"),
            "{body}"
        );
        assert_eq!(get_path(edge.address(), "/health").0, 200);
        assert_eq!(get_path(edge.address(), "/windows").2, "open");
        let (status, head, body) = get_path(edge.address(), "/page");
        assert_eq!(
            (status, body.as_str()),
            (200, "{\n  \"open\": [\n    7\n  ]\n}\n")
        );
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(get_path(edge.address(), "/nothing").0, 404);
        let (status, head, body) = get_path(edge.address(), "/asked?q=a%20b%2B%26c");
        assert_eq!((status, body.as_str()), (200, "\"a b+&c\""));
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(get_path(edge.address(), "/asked").0, 400);

        log.ready();
        restore.progress(41.26, "replaying shard 3");
        let (status, _, body) = get_path(edge.address(), "/ready");
        assert_eq!(status, 503);
        let body: Value = serde_json::from_str(&body).unwrap();
        let expected = json!({"ready": false, "conditions": [
            {"name": "log", "ready": true, "detail": "ok"},
            {"name": "restore", "ready": false, "detail": "replaying shard 3", "percent": 41.3},
        ]});
        assert_eq!(body, expected);
        restore.ready();
        assert_eq!(get_path(edge.address(), "/ready").0, 200);

        // The end does not wait for an open connection.
        let _open = TcpStream::connect(edge.address()).unwrap();
        let address = edge.address();
        drop(edge);
        assert!(TcpStream::connect(address).is_err(), "still listening");
    }

    #[test]
    fn an_address_in_use_or_unreadable_is_a_clear_error() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let start = |address: &str| {
            HttpEdge::start(address, Registry::new(), Readiness::new(), Router::new())
        };
        let error = start(&address.to_string()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("can't listen on {address}")),
            "{error}"
        );
        assert!(std::error::Error::source(&error).is_some());
        let error = start("9464").unwrap_err();
        assert!(error.to_string().contains("is not host:port"), "{error}");
    }
}
