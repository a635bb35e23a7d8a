# omdp: `make` prints what there is. Every target that builds runs
# tools/setup.sh first, which installs nothing when all is there.

.PHONY: help setup echo test lint vuln bench bench-quick bench-build fuzz cover mutants

help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install pkg-config and libzmq's headers if they are missing
	@sh tools/setup.sh

echo: setup ## run the echo example: broker, worker and client in one process
	@go run ./examples/echo

test: setup ## everything that must pass: lint, examples, tests of every module on both socket paths
	@sh tools/test.sh

lint: setup ## gofmt, go vet, go fix, staticcheck
	@sh tools/lint.sh

vuln: setup ## known vulnerabilities (needs the network)
	go tool -modfile=tools/go.mod govulncheck ./...

bench: bench-build ## the whole comparison with the peers, to bench/out (up to 15 minutes)
	cd bench && out/bench

bench-quick: bench-build ## three cases of it on every stack (under a minute)
	cd bench && out/bench -quick

bench-build: setup ## compile all that the benchmark runs
	cd bench && go build -o out/bench . && out/bench -build

FUZZTIME ?= 20s
fuzz: setup ## search with every fuzz target, FUZZTIME=20s each
	@sh tools/fuzz.sh $(FUZZTIME)

cover: setup ## coverage of the tests, to cover.out
	go test -coverpkg=./... -coverprofile=cover.out ./...
	@go tool cover -func=cover.out | tail -n 1

MUTANTS ?= .
mutants: setup ## plant faults in the library, each to be found in 10 s; MUTANTS=core-token for some
	@cd tools && go run ./mutants -root .. -run '$(MUTANTS)'
