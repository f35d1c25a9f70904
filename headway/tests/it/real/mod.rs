//! The binaries as processes of their own over real servers: Kafka, a schema registry, S3 and OpenSearch, which
//! `deploy/local up` starts and `deploy/local env` names. Without them these tests are skipped, and say so.

mod kills;
mod outages;
mod setup;
mod world;
