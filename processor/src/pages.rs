//! What a running processor shows over HTTP, beside its metrics.

use std::sync::Arc;

use runtime::clock::SystemClock;
use runtime::telemetry::{Router, asked_page, json_page};

use crate::progress::Progress;
use crate::query::{self, Limits};
use crate::topology::{self, Latest};
use crate::windows;

/// The pages. Without `limits` state can't be asked for.
pub fn pages(progress: &Arc<Progress>, limits: Option<Limits>) -> Router {
    let shown = Arc::clone(progress);
    let mut pages = json_page("/windows", move || windows::page(&shown));
    let (shown, latest) = (
        Arc::clone(progress),
        Arc::new(Latest::new(Arc::new(SystemClock))),
    );
    pages = pages.merge(asked_page("/topology", move |asked| {
        topology::page(&shown, &latest, asked)
    }));
    if let Some(limits) = limits {
        let shown = Arc::clone(progress);
        let page = asked_page("/query", move |asked| query::page(&shown, &limits, asked));
        pages = pages.merge(page);
    }
    pages
}
