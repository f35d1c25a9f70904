//! Snapshots: a shard's state, written down, so that a restart need not fold all partials again.
//!
//! ```text
//!   <app>.<query>.state, compacted, a partition for each shard
//!     rows/0/<writer>/7   partial rows: some batches, or parts of them      written once, before the manifest
//!     rows/0/<writer>/8   …
//!     manifest/0          which batches make up the state after partials offset O, and where they are
//! ```
//!
//! The batches of a fold never change, so that a snapshot writes only those that the last one did not. The manifest goes
//! into the transaction of a commit of the shard's own partials offset, together with the tombstones of what it no longer
//! names: whoever may not commit that offset can't leave a manifest. Only behind that commit are the partials below O
//! deleted. A key holds its writer's name, which is another one after each restore: what one writer has left behind can't
//! be taken for another's.

pub mod draft;
pub mod manifest;
pub mod restore;
pub mod shelf;

/// Why a snapshot can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Arrow failed.
    #[error("rows of the state can't be read or written as Arrow IPC")]
    Rows(#[from] arrow::error::ArrowError),
    /// They are no stream of plain columns, or too large for memory.
    #[error("rows of the state can't be read or written")]
    Stream(#[from] crate::partial::PartialError),
    /// The manifest can't be read or written.
    #[error("the manifest of the state can't be read: {detail}")]
    Manifest {
        /// Why.
        detail: String,
    },
    /// The manifest is in a version that is not read.
    #[error("the manifest of the state can't be read")]
    Format(#[from] crate::format::FormatError),
    /// The manifest is not as it was written.
    #[error(
        "the checksum of the state's manifest is missing or is not that of what it says: it was damaged in the log, or something else writes to the state topic"
    )]
    Damaged,
    /// A record that the manifest names is missing, or is not the one that it names.
    #[error(
        "record {key} of the state is missing or is not the one that its manifest names: something else writes to the state topic, or deletes from it"
    )]
    Record {
        /// Its key.
        key: String,
    },
    /// The partials topic is not the one that the snapshot is of.
    #[error(
        "the partials topic was deleted and created again: the snapshot is of the one with id {was}, and this one's is {is}"
    )]
    PartialsTopic {
        /// The id in the manifest.
        was: String,
        /// The topic's id.
        is: String,
    },
    /// A record or the manifest is larger than a record may be.
    #[error(
        "a record of the state would take {bytes} bytes, more than {}",
        crate::partial::MAX_BYTES
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// What was read can't be read back.
    #[error("a temporary file can't be read")]
    Spool(#[from] std::io::Error),
    /// The state is not of this job, or contradicts itself.
    #[error(transparent)]
    Image(#[from] engine::fold::ImageError),
}
