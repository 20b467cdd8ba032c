# syntax=docker/dockerfile:1
# The Tidemill hub as a container.
#
#   docker build --tag tidemill .
#   docker run --rm -p 127.0.0.1:1883:1883 -p 127.0.0.1:8080:8080 -v tidemill:/var/lib/tidemill tidemill
#
# It runs /etc/tidemill/tidemill.yaml: mount a configuration of your own over it.

# ---- builder: the same Debian as the runtime, so that the binary finds the libraries it was linked with ----
# The Rust version is the one of rust-toolchain.toml.
ARG RUST_VERSION=1.95.0
FROM rust:${RUST_VERSION}-bookworm AS builder

# What scripts/bootstrap build would install; the rest is in the image.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libclang-dev libssl-dev pkg-config \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /src
COPY . .

# The caches keep crates and compiled dependencies from one build to the next; they are no part of the image, so
# the binary is copied out in the same step. Symbols stay for stack traces, line tables go.
# `locked`: two builds at once must not write to one target directory.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked --workspace --bins \
    && objcopy --strip-debug target/release/tidemill /usr/local/bin/tidemill

# ---- runtime: the binary, the few shared libraries it needs, certificates ----------------------------------
FROM debian:bookworm-slim

# libssl3 is librdkafka's; libstdc++6 is RocksDB's. zlib, lz4, zstd and jemalloc are linked into the binary.
# The fixed numbers let a volume, or a Kubernetes securityContext, name the owner.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates libssl3 libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 tidemill \
    && useradd --uid 10001 --gid tidemill --no-create-home --home-dir /var/lib/tidemill --shell /usr/sbin/nologin tidemill \
    && install -d -o tidemill -g tidemill -m 0750 /var/lib/tidemill

COPY --from=builder /usr/local/bin/tidemill /usr/local/bin/tidemill
COPY docker/tidemill.yaml /etc/tidemill/tidemill.yaml
COPY docker/healthcheck /usr/local/bin/tidemill-healthcheck

USER 10001:10001
WORKDIR /var/lib/tidemill
# The log, the indexes and the cursors.
VOLUME /var/lib/tidemill
# MQTT; HTTP: health, metrics and the API.
EXPOSE 1883 8080

# After a crash the hub rebuilds its index from the last checkpoint before it listens.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["tidemill-healthcheck"]

# SIGTERM makes the hub drain and write its checkpoint; Docker kills it after 10 s.
ENTRYPOINT ["tidemill"]
CMD ["serve", "--config", "/etc/tidemill/tidemill.yaml", "--stop-within", "8s"]
