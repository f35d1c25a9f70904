//! What stands in the metadata of a committed offset: how much has been written so far, and the plan of the flush that
//! is under way, if one is.
//!
//! ```text
//!   commit (start, plan) ──▶ upload one file per Hive partition ──▶ dead letters ──▶ commit (end, no plan)
//!                  └── whoever starts here reads [start, end) again and writes the same names again
//! ```
//!

mod decision;
mod note;
mod refusal;
#[cfg(test)]
mod tests;

pub use decision::{Decision, Facts, check_counts, check_schema, decide};
pub use note::{FlushPlan, Note, NoteError, Totals, WRITER_VERSION, fingerprint};
pub use refusal::{Refusal, Refused};
