.PHONY: help fmt lint test doc check accept deps bench bench-folder bench-check soak postgres strace

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

fmt: ## formats the code
	cargo fmt

lint: ## formatting and clippy
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	@# Without its features; with the bench, so that no dependency is built again.
	cargo clippy --locked --no-default-features --lib --bins --bench counts -- -D warnings

postgres: # the server binaries that the tests start
	@sh tests/support/need-postgres.sh

strace: # makes the tests' disks fail
	@sh tests/support/need-strace.sh

test: postgres strace ## everything, including the tests on a real PostgreSQL
	@# One more than there are cores: many wait for what is away, slow or silent.
	cargo nextest run --locked --test-threads $$(($$(nproc) + 1))
	cargo test --locked --doc

doc: ## the documentation, without a warning
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

check: lint test doc ## lint, test, doc: what CI runs

accept: ## takes the recorded outputs as they are now; then read the diff
	INSTA_UPDATE=always cargo nextest run

deps: ## licences, bans, sources; unused dependencies
	cargo deny --offline check licenses bans sources
	cargo machete

soak: postgres ## kill -9 under load, KILLS=200 times, SEED=… to repeat
	KILLS=$(or $(KILLS),200) cargo test --locked --test all -- crash_and_resume::a_daemon_killed --nocapture

bench: postgres ## the activation job beside the machine's own limits
	cargo bench --locked --bench activation

bench-folder: ## ten thousand campaign files, a thousand of them due at once
	cargo bench --locked --bench folder

bench-check: ## instructions of the hot paths: fails when one grew by a tenth; needs valgrind
	cargo bench --locked --bench counts
