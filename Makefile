# keyd. `make demo` and `make test` install what they need on a fresh Debian
# machine with Go; nothing else has to be installed or set by hand.

GO ?= go
BIN := bin/keyd
PKGS := ./...
FUZZTIME ?= 30s
BENCHTIME ?= 1s
RESULTS := bin/tests.json
FOR ?= 5m

# SQLite syncs by fdatasync where the system's can be trusted: its log is written
# over in place, and fsync would write the file's time stamps with every commit.
# And it counts no memory, for which each allocation takes a lock.
ifeq ($(shell uname -s),Linux)
export CGO_CFLAGS ?= -O2 -g -DHAVE_FDATASYNC=1 -DSQLITE_DEFAULT_MEMSTATUS=0
endif
KILLS ?= 200
AUDIT_BENCH_DIR ?= bin/bench-audit
FIND_DIR ?= bin/bench-find
FIND_RECORDS ?= 10000000

.PHONY: all build install demo test test-vault test-node test-python coverage-spec chaos kills check bench bench-audit bench-find fuzz clean deps testdeps vectors

all: build

build:
	@command -v $(GO) >/dev/null || { echo "keyd needs Go 1.26 or later: https://go.dev/dl" >&2; exit 1; }
	@command -v $${CC:-cc} >/dev/null || { echo "keyd needs a C compiler: apt-get install gcc libc6-dev" >&2; exit 1; }
	CGO_ENABLED=1 $(GO) build -trimpath -o $(BIN) ./cmd/keyd

# What the demo needs beside Go and a C compiler, and the tests: both modules.
deps:
	@sh scripts/deps.sh
testdeps:
	@sh scripts/deps.sh test

demo: deps build
	@$(BIN) demo

# The boundary's tests, custody's and the vectors run on both modules by
# themselves; the API's and the switch's run once on each. The arithmetic runs
# once more with stack and registers erased behind it (C-15). What became of each
# test is kept for `make coverage-spec`.
test: testdeps
	@mkdir -p bin
	CGO_ENABLED=1 $(GO) run ./scripts/specs test --to $(RESULTS) -- $(GO) test -json -race -timeout 120m $(PKGS)
	KEYD_TEST_MODULE=softokn CGO_ENABLED=1 $(GO) test -race -timeout 60m ./internal/api ./softhsm-test
	GOEXPERIMENT=runtimesecret CGO_ENABLED=1 $(GO) test ./internal/secret ./dukpt ./pin ./mac ./keys/...
	@sh scripts/vectors.sh
	@GO=$(GO) sh scripts/node.sh

# Which test holds which rule of the specifications, by the results of the last
# `make test`; where there are none the tests run first.
coverage-spec: testdeps
	@test -f $(RESULTS) || { mkdir -p bin; CGO_ENABLED=1 $(GO) run ./scripts/specs test --to $(RESULTS) -- $(GO) test -json -timeout 120m $(PKGS); }
	@$(GO) run ./scripts/specs report $(RESULTS)

# Fifty terminals, faulty links, a faulty issuer, and a daemon that is killed
# again and again. FOR=1h make chaos for longer, SEED=n for the dice of a run.
chaos: testdeps
	KEYD_CHAOS_FOR=$(FOR) $(if $(SEED),KEYD_CHAOS_SEED=$(SEED)) CGO_ENABLED=1 $(GO) test -count=1 -timeout 0 -v -run '^TestChaos$$' ./cmd/keyd

# The audit log, killed KILLS times under 64 producers (L-191). SEED=n for the dice of a run.
kills: testdeps
	KEYD_AUDIT_KILLS=$(KILLS) $(if $(SEED),KEYD_AUDIT_KILL_SEED=$(SEED)) CGO_ENABLED=1 $(GO) test -count=1 -timeout 30m -v -run '^TestKill$$' ./audit

# The official JavaScript clients alone.
test-node: testdeps
	@GO=$(GO) sh scripts/node.sh

# A real Vault server, and keyd against it. The server is a module of its own,
# which `go build ./...` here does not see; it is in no release, and so neither
# in the bill of materials nor in the vulnerability gate.
test-vault: testdeps
	@GO="$(GO)" sh scripts/vault.sh

# boto3, where python3 has it; not part of `make test`.
test-python: deps build
	KEYD=$(CURDIR)/$(BIN) python3 cmd/keyd/testdata/python/test_boto3.py -v

# The vectors alone, counted by file and module.
vectors: testdeps
	@sh scripts/vectors.sh

# What stands between a change and its commit.
check:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	 if [ -n "$$unformatted" ]; then echo "gofmt these files:"; echo "$$unformatted"; exit 1; fi
	$(GO) vet $(PKGS)
	$(GO) tool staticcheck $(PKGS)
	$(GO) test -count=1 ./internal/arch
	@sh scripts/vulncheck.sh

# Raw token operations, then the API and the switch with their load generator.
bench: testdeps build
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) -benchmem ./dukpt ./pin ./mac ./keys/tr31 ./audit ./internal/hsm ./internal/store ./internal/iso8583 ./internal/dudect
	$(BIN) bench

# The audit log, beside Tessera's POSIX driver and turn by turn with it, on the
# disk of AUDIT_BENCH_DIR; nothing else may use the machine. Gates fail it.
bench-audit: deps build
	cd internal/oracle && $(GO) build -o $(CURDIR)/bin/appender ./appender
	@mkdir -p $(AUDIT_BENCH_DIR)
	$(BIN) bench audit --check --dir $(AUDIT_BENCH_DIR) --against bin/appender
	$(GO) test -run '^$$' -bench 'Audit(Encode|Verify)' -benchmem ./audit

# The search in an audit log of ten million records, some 10 GB on the disk of
# FIND_DIR, which must not exist yet; a search of a second or more fails it.
bench-find: build
	$(BIN) bench find --check --records $(FIND_RECORDS) --dir $(FIND_DIR)
	@rm -r $(FIND_DIR)

# Puts the program, the unit and the completion of shells where a system looks
# for them; packagers set DESTDIR. It builds nothing: run `make build` first.
install:
	@test -x $(BIN) || { echo "run make build first" >&2; exit 1; }
	@sh scripts/install.sh $(BIN)

fuzz:
	@sh scripts/fuzz.sh $(FUZZTIME)

clean:
	rm -rf bin
