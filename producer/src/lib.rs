//! CSV files to Avro records on the log, exactly once.
//!
//! ```text
//!   files ──▶ rows ──▶ mapping + rules ──▶ Avro ──▶ topic          ┐
//!                 └────────────┴── reason ────────▶ topic.dlq      ├ one transaction
//!   file, byte, hash of all bytes before it ──────▶ positions      ┘
//! ```
//!
//! A row is delivered or becomes a dead letter, never both and never neither; a restart goes on at the committed
//! position, which lies in the transaction of the rows before it. Memory does not grow with the input.

mod avro;
mod error;
pub mod input;
pub mod mapping;
mod metrics;
mod position;
mod progress;
mod reason;
mod run;

pub use error::ProducerError;
pub use input::{Inputs, Next, Source};
pub use mapping::Mapping;
pub use metrics::Metrics;
pub use position::{POSITIONS_TOPIC, ReadError, read_positions};
pub use progress::Progress;
pub use reason::Reason;
pub use run::{Options, Summary, run, setup_topics, topics};
