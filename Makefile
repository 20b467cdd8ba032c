# Everything a person or CI runs here. `make` alone tells what there is.
#
# One profile (release) and one selection of packages (--workspace) for everything: cargo builds a dependency
# again for each profile and each set of features, and RocksDB and librdkafka take minutes.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TIDEMILL := $(TARGET_DIR)/release/tidemill
# CI must build what is committed; at home a new dependency may still change Cargo.lock.
LOCKED := $(if $(CI),--locked)
FLAGS := --release --workspace $(LOCKED)

# Passed on: make demo DEMO_ARGS="--for 20s --outage 5s", make test TEST_ARGS="--test kill", make bench-store BENCH_ARGS=--quick
BENCH_ARGS ?=
DEMO_ARGS ?=
TEST_ARGS ?=

# What each target does stands behind its name, where `make help` finds it.

.PHONY: help
help: ## this list
	@echo 'make TARGET, where TARGET is one of'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-14s %s\n", $$1, $$2 }'

.PHONY: demo
demo: build ## install what is missing, build, and run the demo: 1,000 vehicles into one hub (DEMO_ARGS)
	@$(TIDEMILL) demo $(DEMO_ARGS)

.PHONY: bench-store
bench-store: build ## build, and measure the store beside what this machine's disk can do: some 5 minutes (BENCH_ARGS)
	@$(TIDEMILL) bench store $(BENCH_ARGS)

.PHONY: bench-mqtt
bench-mqtt: build ## build, and measure the hub beside mosquitto, if that is installed: some 12 minutes (BENCH_ARGS)
	@$(TIDEMILL) bench mqtt --compare $(BENCH_ARGS)

.PHONY: test
test: bootstrap-test ## install what is missing, build, and run all tests, also against real servers (TEST_ARGS)
	@# The whole-system tests start the program itself, which `cargo test` would not build for another crate.
	$(CARGO) build $(FLAGS) --bins
	TIDEMILL_BIN='$(abspath $(TIDEMILL))' $(CARGO) test $(FLAGS) --no-fail-fast $(TEST_ARGS)

.PHONY: build
build: bootstrap-build ## install what is missing and build target/release/tidemill
	$(CARGO) build $(FLAGS) --bins

.PHONY: check
check: fmt-check lint docs links deny ## all that CI checks, but for the tests

.PHONY: fmt
fmt: ## format the code
	$(CARGO) fmt --all

.PHONY: fmt-check
fmt-check: ## is the code formatted?
	$(CARGO) fmt --all --check

.PHONY: lint
lint: ## clippy; its warnings are errors
	$(CARGO) clippy $(FLAGS) --all-targets -- -D warnings

.PHONY: docs
docs: ## build the code's documentation; broken links are errors
	RUSTDOCFLAGS='-D warnings -D rustdoc::broken_intra_doc_links' $(CARGO) doc $(FLAGS) --no-deps --document-private-items

.PHONY: links
links: ## do the links and paths in *.md exist?
	@scripts/check-links

.PHONY: deny
deny: ## licences, bans and sources of the dependencies (needs cargo-deny)
	@scripts/deny

.PHONY: docker
docker: ## build the container image tidemill:latest
	docker build --tag tidemill:latest .

.PHONY: bootstrap-build bootstrap-test
bootstrap-build:
	@scripts/bootstrap build
bootstrap-test:
	@scripts/bootstrap test
