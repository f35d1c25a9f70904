//! The sink over the embedded log at real S3 servers: those that `HEADWAY_TEST_S3` names, as `deploy/local env` prints them.

mod errors;
mod faults;
mod proxy;
mod servers;
mod tls;
