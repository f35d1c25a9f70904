//! The contracts between the parts: the shipped Avro schemas, the registry that numbers them, the wire format that carries
//! a schema's number with each record, and the codecs between records and Arrow batches.
//!
//! ```text
//!   schema text ──register──▶ Registry ──▶ SchemaId ──▶ wire::frame ──▶ record
//!   record ──wire::unframe──▶ SchemaId ──by_id──▶ writer schema ──▶ decode::BatchDecoder ──▶ Arrow batch
//!   Arrow batch ──▶ encode::BatchEncoder ──▶ framed records
//! ```

mod avro;
pub mod decode;
pub mod encode;
mod project;
pub mod record;
mod registry;
pub mod wire;

pub use project::{ProjectError, projected_schema};
pub use registry::{
    AddressError, Admin, Credentials, EmbeddedRegistry, Evolved, HttpRegistry, HttpRegistryOptions,
    Refused, Registry, RegistryError, SchemaId, Unreached, can_replace, evolve, value_subject,
};

/// The shipped schemas, as they are registered.
pub mod shipped {
    /// A taxi trip, standardised: what the producer writes.
    pub const TAXI_TRIP: &str = include_str!("../taxi_trip.avsc");
    /// One vendor's statistics of one window: what the shipped job writes.
    pub const TRIP_STATISTICS: &str = include_str!("../trip_statistics.avsc");
    /// A row or record that could not be processed.
    pub const DEAD_LETTER: &str = include_str!("../dead_letter.avsc");
    /// How far a set of input files has been sent: what the producer writes beside the rows.
    pub const POSITION: &str = include_str!("../position.avsc");
    /// The topic of [`POSITION`], shared by all input sets.
    pub const POSITIONS_TOPIC: &str = "headway.positions";
    /// Rows that came after their window was closed.
    pub const LATE: &str = include_str!("../late.avsc");
}
