# Every target a newcomer, CI and a release need. Plain cargo underneath; nothing hidden.
CARGO ?= cargo
export RUST_BACKTRACE ?= 0

# Programs that the tests speak to, and the Debian packages they come from.
TEST_PROGRAMS = awk:mawk bash:bash bc:bc curl:curl git:git journalctl:systemd \
	prometheus:prometheus promtool:prometheus python3:python3 setpriv:util-linux setsid:util-linux \
	unshare:util-linux
BENCH_PROGRAMS = erl:erlang-base gcc:gcc

.PHONY: test check bench soak demo deps bench-deps lint doc help

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

deps: ## install what the tests need (root), or say what is missing
	@scripts/need $(TEST_PROGRAMS)

bench-deps:
	@scripts/need $(BENCH_PROGRAMS)

lint: ## formatting and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --quiet -- -D warnings
	$(CARGO) clippy --no-default-features --lib --quiet -- -D warnings

doc: ## documentation without a warning
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items --quiet

test: deps lint doc ## everything a change must pass
	$(CARGO) test --quiet --doc
	$(CARGO) test --quiet --no-fail-fast --lib --bins --tests

check: test ## the slow gates too; says which of its tools it did not find
	@scripts/slow-gates

soak: deps ## the whole counts, from a release build; see docs/SOAK.md
	WHARF_SOAK=1 WHARF_HISTORIES=100000 $(CARGO) test --profile soak -- --test-threads=2

bench: bench-deps ## speed beside a bare C loop and Erlang, in one run
	$(CARGO) bench --bench speed

demo: ## real programs as supervised ports
	$(CARGO) run --release -- up
