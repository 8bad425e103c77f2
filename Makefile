# Zvonok. `make help` lists the targets.

GO        ?= go
GOFLAGS   ?=
STATICCHECK = $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     = $(GO) run mvdan.cc/gofumpt@v0.12.0
VERSION   := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS    = -ldflags "-X main.version=$(VERSION)"

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/zvonok and bin/zvonok-operator
	$(GO) build $(GOFLAGS) $(LDFLAGS) -o bin/ ./cmd/zvonok ./cmd/zvonok-operator

.PHONY: run
run: setup-run build ## run the demo city: gateway, operator in a box, page of phones
	./bin/zvonok demo

.PHONY: test
test: setup-test ## every test on real parts, with the race detector
	$(GO) test $(GOFLAGS) -race -timeout 9m ./...

.PHONY: check
check: ## formatting, vet, staticcheck, import order, go.mod tidy
	@unformatted=$$($(GOFUMPT) -l cmd gateway ussd ledger access templates); \
	  if [ -n "$$unformatted" ]; then echo "not formatted (run make format):"; echo "$$unformatted"; exit 1; fi
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GO) test -run 'TestImportsGoOneWay' ./cmd/zvonok
	$(GO) mod tidy -diff

.PHONY: format
format: ## format every Go file
	$(GOFUMPT) -w cmd gateway ussd ledger access templates

.PHONY: bench
bench: setup-test ## benchmarks with allocations, each beside what it is compared with
	$(GO) test $(GOFLAGS) -run '^$$' -bench . -benchmem -timeout 60m ./...

.PHONY: load
load: setup-run build ## 2,000 uploads a second against a city of 400,000; a kill -9 in the middle; everybody's digest beside it
	$(GO) run ./cmd/zvonok-load --rate 2000 --seconds 20
	$(GO) run ./cmd/zvonok-load --rate 2000 --seconds 20 --kill
	$(GO) run ./cmd/zvonok-load --rate 200 --seconds 200 --digests

.PHONY: faults
faults: setup-test build ## kill -9 again and again under load, then the fault tests of every package
	$(GO) run ./cmd/zvonok-load --dir var/faults --people 60000 --schools 100 --rate 400 --seconds 5 --kill --rounds $(KILLS)
	ZVONOK_TEST_DEADLOCK_SECONDS=60 $(GO) test $(GOFLAGS) -race -count 1 -run 'Kill|Crash|Fault|Dead|Lost|Restart|Stopped|Full|Replay' ./...
KILLS ?= 10

.PHONY: mutate
mutate: setup-test ## change the book's functions one operator at a time: the tests must notice four of five
	$(GO) test $(GOFLAGS) -tags mutation -run TestMutationGate -v -timeout 0 ./ledger -every $(EVERY)
EVERY ?= 1

.PHONY: interop
interop: ## conversations with Kannel, node-smpp, Net::SMPP and others, captured and dissected
	.ci/interop

# What a fuzzer finds new it makes shorter for up to a minute, and counts nothing
# meanwhile: in a package with many dependencies it would do nothing else.
.PHONY: fuzz
fuzz: ## a minute of fuzzing for every parser of foreign bytes
	@set -e; for package in $$($(GO) list ./...); do \
	  for name in $$($(GO) test -list '^Fuzz' $$package | grep '^Fuzz' || true); do \
	    echo "$$package $$name"; $(GO) test -run '^$$' -fuzz "^$$name$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x $$package; \
	  done; done
FUZZTIME ?= 60s

# What a machine may lack comes from the system's package manager, announced
# in one line first. setup-run needs the PostgreSQL server; the tests also a browser.
.PHONY: setup-run setup-test
setup-run:
	@.ci/setup postgresql
setup-test:
	@.ci/setup postgresql chromium
