.PHONY: help fmt lint test doc check accept deps bench postgres

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

fmt: ## formats the code
	cargo fmt

lint: ## formatting and clippy
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings

postgres: # the server binaries that the tests start
	@sh tests/support/need-postgres.sh

test: postgres ## everything, including the tests on a real PostgreSQL
	cargo nextest run --locked
	cargo test --locked --doc

doc: ## the documentation, without a warning
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

check: lint test doc ## lint, test, doc: what CI runs

accept: ## takes the recorded outputs as they are now; then read the diff
	INSTA_UPDATE=always cargo nextest run

deps: ## licences, bans, sources; unused dependencies
	cargo deny --offline check licenses bans sources
	cargo machete

bench: postgres ## the activation job beside the machine's own limits
	cargo bench --locked --bench activation
