# The habits of this repository. `just` lists them.

[private]
default:
    @just --list --unsorted

# Format, lints and generated pages, as CI checks them
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# Every test that needs no server
test *ARGS:
    cargo test --release --workspace {{ARGS}}

# The tests that need real servers (Kafka, registry, OpenSearch, S3), started on loopback
real:
    .ci/run real

# Real servers on loopback: `just local up`, `just local status registry`, `just local env`
local *ARGS:
    deploy/local {{ARGS}}

# docker-compose.yml and the image, held against the binaries and run against servers
compose:
    .ci/run compose

# Write the generated pages, build the API documentation
docs:
    cargo run --release -p runtime --example config_docs
    cargo doc --release --no-deps --workspace

# How fast producer and processor are over Kafka: `just bench processor --brokers HOST:PORT --registry URL`
bench *ARGS:
    cargo build --profile dist -p bench -p producer -p processor -p headway
    target/dist/bench {{ARGS}}

# The whole pipeline in one process
demo *ARGS:
    cargo run --release -- demo {{ARGS}}

# Everything that CI runs
ci:
    .ci/run
