# One image with every binary of the pipeline; which one runs is the container's command:
#
#   docker build -t headway .                 half an hour or more the first time on two cores
#   docker run --rm headway producer --help
#
# Building needs BuildKit (Docker 23 or newer has it on) or buildah, for the cache mounts.
# Arguments: the images to build on, and the Cargo profile. `release` builds faster than `dist`, runs slower, and keeps the
# assertions of our own packages.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-bookworm
ARG BASE_IMAGE=docker.io/library/debian:bookworm-20260824-slim

FROM ${RUST_IMAGE} AS build
ARG PROFILE=dist
RUN apt-get update \
 && apt-get install -y --no-install-recommends g++ make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock rust-toolchain.toml ./
COPY bench bench
COPY headway headway
COPY processor processor
COPY producer producer
COPY runtime runtime
COPY schemas schemas
COPY sinks sinks
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --profile "$PROFILE" --workspace --exclude bench --bins \
 && mkdir /binaries \
 && cp "target/$PROFILE/producer" "target/$PROFILE/processor" "target/$PROFILE/sink-s3" \
       "target/$PROFILE/sink-opensearch" "target/$PROFILE/schemas" "target/$PROFILE/headway" /binaries/

FROM ${BASE_IMAGE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 headway \
 && useradd --uid 10001 --gid headway --no-create-home --home-dir /var/lib/headway --shell /usr/sbin/nologin headway \
 && install -d -o headway -g headway /var/lib/headway
COPY --from=build /binaries/ /usr/local/bin/
COPY deploy/image/ready /usr/local/bin/ready
COPY processor/jobs /usr/share/headway/jobs
COPY producer/mappings /usr/share/headway/mappings
COPY sinks/opensearch/documents /usr/share/headway/documents
COPY schemas/*.avsc /usr/share/headway/schemas/
# In a container every binary serves /metrics, /health and /ready there.
ENV HEADWAY_TELEMETRY_HTTP_ADDRESS=0.0.0.0:9464
EXPOSE 9464
USER headway
WORKDIR /var/lib/headway
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s --retries=6 CMD ["ready"]
CMD ["headway", "--help"]
