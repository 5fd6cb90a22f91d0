# syntax=docker/dockerfile:1
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked \
    && install -D target/release/headcount /out/usr/local/bin/headcount \
    && install -d /out/var/lib/headcount

# glibc and certificates, nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /out/usr /usr
# The store and its key. Mount a volume here, or every session is forgotten with the container.
COPY --from=build --chown=65532:65532 /out/var/lib/headcount /var/lib/headcount
WORKDIR /var/lib/headcount
USER 65532:65532
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/usr/local/bin/headcount", "health", "-c", "/etc/headcount/headcount.toml"]
ENTRYPOINT ["/usr/local/bin/headcount"]
CMD ["serve", "-c", "/etc/headcount/headcount.toml"]
