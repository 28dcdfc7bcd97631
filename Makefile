# Every target a newcomer, CI and a release need. Plain cargo underneath; nothing hidden.
CARGO ?= cargo
export RUST_BACKTRACE ?= 0

# Programs that the tests speak to, and the Debian packages they come from.
TEST_PROGRAMS = awk:mawk bash:bash bc:bc curl:curl git:git python3:python3 py-ensurepip:python3-venv \
	setpriv:util-linux setsid:util-linux unshare:util-linux
# What speaks each framing: apt's methods in stanzas, ed and sqlite3 with prompts, and so on.
TEST_PROGRAMS += /usr/lib/apt/methods/file:apt ed:ed gzip:gzip nvim:neovim pylsp:python3-pylsp \
	sqlite3:sqlite3
# What says how it is, and what hands sockets over.
TEST_PROGRAMS += systemd-notify:systemd systemd-socket-activate:systemd
# What enters a namespace from outside, and what looks after units for a package.
TEST_PROGRAMS += deb-systemd-helper:init-system-helpers dpkg-deb:dpkg nsenter:util-linux
# What scrapes us and what takes what we forward.
TEST_PROGRAMS += journalctl:systemd prometheus:prometheus promtool:prometheus
# What reads our documents: manual pages, completions, recipes.
TEST_PROGRAMS += amtool:prometheus-alertmanager fish:fish jq:jq man:man-db mandoc:mandoc \
	systemd-analyze:systemd zsh:zsh
# What several callers share.
TEST_PROGRAMS += gdb:gdb tmux:tmux xargs:findutils
# What holds its output back, and what looks at terminals.
TEST_PROGRAMS += grep:grep mawk:mawk sed:sed stdbuf:coreutils stty:coreutils tty:coreutils
# What does not care about the end of its input, and what begins with a banner.
TEST_PROGRAMS += aspell:aspell /usr/lib/aspell/en.multi:aspell-en exiftool:libimage-exiftool-perl \
	inotifywait:inotify-tools redis-server:redis-server
# What moves the clocks.
TEST_PROGRAMS += /usr/lib/*/faketime/libfaketimeMT.so.1:libfaketime /usr/share/zoneinfo/Europe/Berlin:tzdata
# What the SDKs are for.
TEST_PROGRAMS += gcc:gcc make:make node:nodejs
# What the profiles of ports/ speak to: their transcripts say it.
# What answers out of order.
TEST_PROGRAMS += /usr/lib/erlang/erts-*/bin/inet_gethost:erlang-base
PROFILE_PROGRAMS = $(shell scripts/profile-programs quick)
ALL_PROFILE_PROGRAMS = $(shell scripts/profile-programs all)
FUZZ_SECONDS ?= 60
PARTS ?= supervise exchange framing spec words
BENCH_PROGRAMS = erl:erlang-base gcc:gcc
# Those beside which supervision is measured; circus and pm2 come from their own indexes, into target/bench.
BENCH_PEERS = multilog:daemontools node:nodejs npm:npm py-ensurepip:python3-venv runsvdir:runit s6-svscan:s6 \
	supervisord:supervisor

HOST := $(shell rustc -vV | sed -n 's/^host: //p')
NUMBER := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)

.PHONY: test check bench bench-supervision fuzz mutants soak demo deps soak-deps bench-deps bench-supervision-deps lint doc help deb static dist package-files release-notes

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s:

deps: ## install what the tests need (root), or say what is missing
	@scripts/need $(TEST_PROGRAMS) $(PROFILE_PROGRAMS)

soak-deps: deps ## and what only a soak needs
	@scripts/need $(ALL_PROFILE_PROGRAMS)

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

soak: soak-deps ## the whole counts, from a release build; see docs/SOAK.md
	WHARF_SOAK=1 WHARF_HISTORIES=100000 $(CARGO) test --profile soak --no-fail-fast -- --test-threads=2

fuzz: ## each framing for FUZZ_SECONDS; needs cargo-fuzz and a nightly toolchain
	@cd fuzz && for target in $$(cargo +nightly fuzz list); do \
		mkdir -p corpus/$$target && \
		cargo +nightly fuzz run $$target corpus/$$target seeds/$$target -- \
			-max_total_time=$(FUZZ_SECONDS) || exit 1; \
	done

mutants: ## seeds bugs into all that decides (hours); SHARDS, FIRST, LAST and PARTS choose; see docs/MUTANTS.md
	@for part in $(PARTS); do scripts/mutants $$part || exit 1; done
	@scripts/mutants summary

bench: bench-deps ## speed beside a bare C loop and Erlang, in one run
	$(CARGO) bench --bench speed
	$(CARGO) bench --profile embedded --bench ports

bench-supervision-deps: bench-deps
	@scripts/need $(BENCH_PEERS)

bench-supervision: bench-supervision-deps ## supervision beside seven others and a bare C loop, in one run
	$(CARGO) bench --bench supervision

demo: ## real programs as supervised ports
	$(CARGO) run --release -- up

package-files: ## manual pages and completions, in target/packaging
	$(CARGO) build --release --locked
	rm -rf target/packaging
	target/release/wharf man target/packaging/man
	mkdir -p target/packaging/completions
	target/release/wharf completions bash > target/packaging/completions/wharf
	target/release/wharf completions zsh > target/packaging/completions/_wharf
	target/release/wharf completions fish > target/packaging/completions/wharf.fish

deb: package-files ## a Debian package in target/debian; needs cargo-deb
	rm -rf target/debian
	$(CARGO) deb --no-build --locked
	dpkg-deb --contents target/debian/wharf_*.deb
	scripts/deb-check target/debian/wharf_*.deb

static: ## target/static/wharf, without shared libraries, and whether it works
	RUSTFLAGS="-C target-feature=+crt-static" $(CARGO) build --release --locked \
		--target $(HOST) --target-dir target/static-build --bin wharf
	mkdir -p target/static
	cp target/static-build/$(HOST)/release/wharf target/static/wharf
	scripts/static-smoke target/static/wharf

dist: static ## the archive that cargo binstall takes
	mkdir -p target/dist/wharf-$(NUMBER)-$(HOST)
	cp target/static/wharf README.md LICENSE-APACHE LICENSE-MIT target/dist/wharf-$(NUMBER)-$(HOST)
	tar -C target/dist -czf target/dist/wharf-$(NUMBER)-$(HOST).tar.gz wharf-$(NUMBER)-$(HOST)

release-notes: ## the newest section of CHANGELOG.md, or that of VERSION
	@$(CARGO) run --quiet --no-default-features --example release-notes -- $(VERSION)
