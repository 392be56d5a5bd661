# Every target installs what it lacks on a bare Debian with Go, and nothing
# the second time. `make` alone prints what there is.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory

# Works in a tarball without git too; the version is then the word of main.go.
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -s -w $(if $(VERSION),-X main.version=$(VERSION))

# Tools are built from tools/go.mod by the go command, which keeps the result
# in its build cache: the first use costs a minute or two, later ones nothing.
tool = go tool -modfile=$(CURDIR)/tools/go.mod

# Every module of the repository; e2e and tools have a go.mod of their own so
# that the official SDKs and the linters stay out of ours.
MODULES := . $(patsubst %/go.mod,%,$(wildcard e2e/go.mod tools/go.mod))

# Longest time a package's tests may take before go test calls them stuck.
TEST_TIMEOUT ?= 10m

.PHONY: help
help: ## Print this help
	@awk 'BEGIN { FS = ":.*## " } /^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## Build bin/batchyard: one static program, no cgo
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o bin/batchyard ./cmd/batchyard

.PHONY: demo
demo: build ## Start everything on this machine and run a real job on it
	./demo/run.sh

.PHONY: bench
bench: build ## Measure docs/performance.md; ROWS=1,4 and ROUNDS=5 narrow it down
	./bench/run.sh -rows '$(ROWS)' -rounds '$(or $(ROUNDS),3)' $(if $(ROWS),,-document docs/performance.md)

.PHONY: soak
soak: build ## Kill servers, agents and databases 500 times; KILLS=20 SEED=7 change it
	tools/apt-install postgresql
	cd e2e && KILLS='$(or $(KILLS),500)' SEED='$(SEED)' go test -count 1 -v -run '^TestKills$$' -timeout 90m ./faults

.PHONY: load
load: build ## Hold thousands of connections to a server and look what grows; LENGTH=1m changes it
	cd e2e && go run ./load -binary ../bin/batchyard -length '$(or $(LENGTH),10m)'

.PHONY: check
check: lint test ## What CI runs: lint, then test

.PHONY: test
test: ## Run all tests: unit with race detector, store on PostgreSQL, official clients
	@begin=$$SECONDS; \
	$(MAKE) test-unit; \
	$(MAKE) test-virtual; \
	$(MAKE) test-postgres; \
	$(MAKE) test-e2e; \
	echo "make test: everything passed in $$((SECONDS - begin)) seconds"

.PHONY: test-unit
test-unit: ## Run the tests of our own packages with the race detector
	@command -v gcc >/dev/null || tools/apt-install gcc libc6-dev
	cd tools && go test ./...
	CGO_ENABLED=1 go test -race -timeout $(TEST_TIMEOUT) ./...

.PHONY: test-virtual
test-virtual: ## Run clusters in virtual time at full size, which is without the race detector
	GOGC=800 go test -timeout $(TEST_TIMEOUT) ./batchtest ./control

.PHONY: test-postgres
test-postgres: ## Run the store's suite against a PostgreSQL server of its own
	tools/with-postgres go test -timeout $(TEST_TIMEOUT) ./store/...

.PHONY: test-e2e
test-e2e: build ## Run the official SDKs and command lines against a real server
	e2e/install.sh
	cd e2e && ../tools/with-postgres go test -timeout 15m ./...

# How long make fuzz tries each target.
FUZZTIME ?= 60s

.PHONY: fuzz
fuzz: ## Look for inputs that break parsers and decoders, FUZZTIME=60s each
	tools/fuzz $(FUZZTIME)

.PHONY: lint
lint: ## Check format, bugs, import layers, licences and known vulnerabilities
	@tools/gofmt-check
	@tools/shell-check
	@echo "licences of dependencies"; cd tools && go run ./licences ..
	@for module in $(MODULES); do \
		echo "go vet ($$module)"; (cd $$module && go vet ./...); done
	@lint=$$($(tool) -n golangci-lint); for module in $(MODULES); do \
		echo "golangci-lint ($$module)"; \
		(cd $$module && "$$lint" run --config "$(CURDIR)/.golangci.yml" ./...); done
	@tools/govulncheck "$$($(tool) -n govulncheck)"
	@echo "make lint: nothing to complain about"

.PHONY: fmt
fmt: ## Format all Go code and sort its imports
	@lint=$$($(tool) -n golangci-lint); for module in $(MODULES); do \
		(cd $$module && "$$lint" fmt --config "$(CURDIR)/.golangci.yml"); done

.PHONY: clean
clean: ## Remove what make built and installed in this folder
	rm -rf bin .cache
