//! Why a record is not taken, and why a decoder can't be made.

use super::cursor::Fault;
use super::flat;
use crate::{RegistryError, SchemaId};

/// A record that can't become a row: a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct BadRecord {
    /// A short code: `not_framed`, `unknown_schema`, `unusable_schema`, `unresolvable_schema`, `undecodable`,
    /// `trailing_bytes` or `too_large`; of JSON `not_json`, `wrong_type`, `missing_field` or `too_large`.
    pub reason: &'static str,
    /// What exactly is wrong, for people.
    pub detail: String,
    /// The writer's schema, where the framing could be read.
    pub schema_id: Option<SchemaId>,
}

/// Why a record was not taken.
#[derive(Clone, Debug, thiserror::Error)]
pub enum PushError {
    /// It is a dead letter. The decoder and its rows are as they were.
    #[error("bad record: {0}")]
    Bad(BadRecord),
    /// The registry can't say what its schema is: pause and push the same record again later.
    #[error(transparent)]
    Registry(RegistryError),
    /// The batch is as large as it may be: flush, then push the same record again.
    #[error("the batch is full: flush it, then push the record again")]
    Full,
}

/// Why a decoder can't be made, or a batch can't be built.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DecodeError {
    /// The reader's schema can't be used.
    #[error("the reader's schema can't be used: {detail}")]
    ReaderSchema {
        /// Why.
        detail: String,
    },
    /// Arrow refuses the columns: a fault in this program. The batch's rows are lost; start again from the last commit.
    #[error("the batch can't be built: {detail}")]
    Build {
        /// What Arrow says.
        detail: String,
    },
}

pub(super) fn bad(reason: &'static str, detail: String, schema_id: Option<SchemaId>) -> PushError {
    PushError::Bad(BadRecord {
        reason,
        detail,
        schema_id,
    })
}

#[cold]
pub(super) fn flat_fault(at: &flat::FieldFault<'_>, id: SchemaId) -> PushError {
    match at.fault {
        Fault::Trailing(_) => bad("trailing_bytes", at.fault.to_string(), Some(id)),
        fault => bad(
            "undecodable",
            format!("field `{}`: {fault}", at.field),
            Some(id),
        ),
    }
}

/// What the registry's refusal means for a record that carries the number.
pub(super) fn refused_by_registry(error: RegistryError, id: SchemaId) -> PushError {
    match error {
        RegistryError::Unknown { .. } => bad("unknown_schema", error.to_string(), Some(id)),
        RegistryError::Invalid { .. } => bad("unusable_schema", error.to_string(), Some(id)),
        RegistryError::Unavailable { .. }
        | RegistryError::Incompatible { .. }
        | RegistryError::NotAllowed { .. }
        | RegistryError::Storage { .. } => PushError::Registry(error),
    }
}
