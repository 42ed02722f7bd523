# `make demo` and `make test` work on a fresh machine with git, make, a C compiler, Python >= 3.11 and Rust.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
SETUP := $(PYTHON) tools/setup_env.py $(if $(NEWEST),--newest)
BIN := .venv/bin
PYTEST_ARGS ?= -n 2 --dist worksteal
MIRI_TESTED := budget:: date::tests::http date::tests::iso head:: hedge:: pace:: xml::list xml::write proxy:: raw::tests::a_span
RUST_TESTED := --workspace --exclude s3dataset-python

.PHONY: help env demo notebook docs test test-fast docs-test test-oldest test-oldest-torch model faults kills soak fuzz fuzz-guided asan miri lint format deny audit licenses lock bench bench-docs scale wheel wheel-check clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

env: ## .venv with everything for development, and the package built into it (NEWEST=1: not the locked versions; EXTRAS="ray": more)
	@$(SETUP) dev $(EXTRAS)

demo: ## train a model on images that stream from a local S3 (ARGS="--uri s3://... --region ..." for a bucket of yours)
	@$(SETUP) demo
	@$(BIN)/python -m s3dataset demo $(ARGS)

notebook: ## execute examples/getting_started.ipynb by forkserver and by fork, its output into the file (ARGS=--check: not)
	@$(SETUP) notebook
	$(BIN)/python tools/notebook.py $(ARGS)

docs: ## the documentation as a site, in site/
	@$(SETUP) docs --no-native
	NO_MKDOCS_2_WARNING=1 PYTHONPATH=tools $(BIN)/mkdocs build --strict --quiet
	@echo 'file://$(CURDIR)/site/index.html'

test: env ## Rust and Python tests
	cargo test --quiet $(RUST_TESTED)
	@$(MAKE) --no-print-directory model
	$(BIN)/python -m pytest $(PYTEST_ARGS) $(ARGS)

test-fast: env ## Python tests without the slow ones
	$(BIN)/python -m pytest $(PYTEST_ARGS) -m 'not slow' $(ARGS)

docs-test: env ## links and blocks of the documentation, examples, the notebook (EXTRAS="ray dev-video": what needs these, too)
	$(BIN)/python -m pytest $(PYTEST_ARGS) tests/documents tests/process/test_*examples.py tests/process/test_*_docs.py \
		tests/process/test_notebook.py $(ARGS)

test-oldest: env ## the fast tests with the oldest versions that pyproject.toml allows (ARGS=tests/...)
	@$(BIN)/python tools/oldest.py $(PYTEST_ARGS) $(ARGS)

test-oldest-torch: env ## tests of checkpoints, the slow ones too, with those versions (ARGS="-n 2", ARGS=tests/...)
	@$(BIN)/python tools/oldest.py --checkpoints $(ARGS)

model: ## queues, budget and assemblies in every order of their threads (loom; a minute)
	cargo test --quiet -p s3dataset-engine --features loom --lib model::

faults: env ## every fault in every use, as a matrix (half an hour)
	$(BIN)/python -m tests.faults.matrix $(ARGS)

kills: env ## every way to end a process in every wait, as a matrix (half an hour)
	$(BIN)/python -m tests.process.kills $(ARGS)

soak: env ## everything at once on a server that has bad days, with a verdict on growth (MINUTES=30)
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) $(ARGS)

fuzz: ## readers of what comes from outside, on spoilt input (SECONDS=60 for each)
	S3DATASET_FUZZ_SECONDS=$(or $(SECONDS),60) cargo test --quiet -p s3dataset-engine --lib -- --nocapture spoilt_input \
		broken_streams

fuzz-guided: ## the same readers and whole requests, by libFuzzer with AddressSanitizer (SECONDS=60 for each; ARGS="--input FILE")
	@$(PYTHON) tools/fuzz.py --seconds $(or $(SECONDS),60) $(ARGS)

asan: env ## the engine's tests, and the Python tests of memory, with AddressSanitizer (Linux)
	@$(BIN)/python tools/asan.py $(ARGS)

miri: ## the engine's tests that do no I/O, in Miri (a nightly toolchain: rustup toolchain install nightly --component miri)
	MIRIFLAGS=-Zmiri-disable-isolation cargo +nightly miri test --quiet -p s3dataset-engine --lib -- $(MIRI_TESTED)

lint: ## every linter, as in CI
	@$(SETUP) dev --no-native
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYTHONPATH=src $(BIN)/lint-imports --no-cache
	cargo fmt --check
	cargo clippy --quiet --workspace --all-targets -- -D warnings
	@$(BIN)/python tools/third_party.py --check
	@if cargo deny --version >/dev/null 2>&1; then $(MAKE) --no-print-directory deny; \
	else echo 'cargo-deny is not installed: licences and sources of crates not checked (cargo install cargo-deny)'; fi

format: ## ruff and rustfmt, in place
	@$(SETUP) dev --no-native
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cargo fmt

deny: ## licences, sources and bans of the Rust dependencies
	cargo deny --all-features --log-level error check bans licenses sources

audit: ## known vulnerabilities of the locked versions, Python's and Rust's (asks PyPI and RustSec)
	@$(PYTHON) tools/audit.py

licenses: ## THIRD-PARTY-LICENSES.txt from Cargo.lock
	@$(PYTHON) tools/third_party.py

lock: ## tools/locks/ anew, from pyproject.toml (Cargo.lock: cargo update)
	@$(PYTHON) tools/lock.py $(ARGS)

bench: ## ours beside the peers, in one run (20 minutes; see benchmarks/README.md)
	@$(SETUP) demo
	$(BIN)/python -m benchmarks $(ARGS)

bench-docs: ## README's table and docs/performance.md from the newest results
	@$(SETUP) demo
	$(BIN)/python -m benchmarks.documents $(ARGS)

scale: env ## many processes under one limit, shares of 1,024 ranks, the largest objects (10 minutes; docs/scale.md)
	$(BIN)/python -m benchmarks.scale $(ARGS)

wheel: ## what is released, in dist/: wheels for old Linux and free-threaded Python, and the sources (docs/releasing.md)
	@$(PYTHON) tools/wheels.py $(ARGS)

wheel-check: ## dist/ as a user gets it: contents, glibc, import and demo in an environment without Rust, the sdist built
	@$(PYTHON) tools/check_wheels.py $(ARGS)

clean: ## everything that make made
	rm -rf .venv .venv-oldest .venv-release .bench-venv target dist site demo-output soak-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -f src/s3dataset/_native*.so
