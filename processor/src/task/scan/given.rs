//! What a scan gives, and why it can't go on.

use arrow::record_batch::RecordBatch;
use engine::partial::Header;
use engine::plan::FragmentError;
use runtime::log::Offset;
use schemas::decode::DecodeError;
use schemas::{RegistryError, SchemaId};

/// A record that can't be processed.
#[derive(Debug)]
pub struct Dead {
    /// Its offset.
    pub offset: Offset,
    /// A short code, the same for all of a kind.
    pub reason: &'static str,
    /// What exactly is wrong.
    pub detail: String,
    /// Its writer's schema, if that could be read.
    pub schema_id: Option<SchemaId>,
    /// Its value.
    pub raw: Vec<u8>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Taken {
    /// Its records that can't be processed.
    pub dead: Vec<Dead>,
    /// Where the task stopped because the registry can't be reached: the record at this offset was not taken.
    pub stopped: Option<(Offset, RegistryError)>,
}

/// What a range gives.
#[derive(Debug)]
pub enum Outgoing {
    /// A record for the partials topic, one per query and shard.
    Partial {
        /// Which query, by its place in [`crate::job::Job::queries`].
        query: usize,
        /// To which shard.
        shard: i32,
        /// What stands beside the rows.
        header: Header,
        /// The rows; `None` if there are none for this shard.
        rows: Option<RecordBatch>,
    },
    /// Results of a query without state.
    Results {
        /// Which query, by its place in [`crate::job::Job::queries`].
        query: usize,
        /// The rows.
        rows: RecordBatch,
    },
}

/// Why a scan can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The decoder failed as a whole.
    #[error("records can't be decoded into columns")]
    Decode(#[from] DecodeError),
    /// A fragment failed.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// Rows can't be left out, or spread over shards.
    #[error("rows can't be filtered, or spread over shards")]
    Rows(#[from] arrow::error::ArrowError),
    /// The decoder has not the columns that the plan asks for.
    #[error("column {column} of topic {topic} is missing, or is not a timestamp")]
    Column {
        /// Which column.
        column: String,
        /// Of which topic.
        topic: String,
    },
}
