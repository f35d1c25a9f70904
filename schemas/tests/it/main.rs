//! The package's properties, each against an independent reader or writer: apache-avro.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod decode;
mod encode;
mod http;
mod json;
mod oracle;
mod rate;
mod real;
mod record;
