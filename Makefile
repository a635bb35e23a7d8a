# omdp: `make` prints what there is. Every target that builds runs
# tools/setup.sh first, which installs nothing when all is there.

.PHONY: help sim setup echo test lint vuln bench bench-quick bench-build fuzz asan valgrind memory cover chaos soak model mutants interop conformance

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

FUZZTIME ?= 60s
fuzz: setup ## search with every fuzz target, FUZZTIME=60s each
	@sh tools/fuzz.sh $(FUZZTIME)

CHAOS ?= 60s
CHAOS_SEED ?= 0
chaos: setup ## kill, stop and cut real processes for CHAOS=60s, then check the promises (CHAOS_SEED repeats a schedule)
	go run ./chaos -time $(CHAOS) -seed $(CHAOS_SEED)

SOAK ?= 10m
SOAK_STREAM ?= 2048
soak: setup ## streams of SOAK_STREAM=2048 MiB, steady load for SOAK=10m, a stuck client, overload: memory and delays (three to ten minutes more in all)
	go run ./chaos -soak $(SOAK) -stream $(SOAK_STREAM)

memory: setup ## a broker with 1,000 clients that never read and 100,000 queued requests stays under its bound (docs/limits.md)
	@OMDP_TEST_MEMORY=full go test -count=1 -timeout 10m -v -run '^TestMemory$$' .

asan: setup ## the tests of what crosses into C, and of all built on it, under AddressSanitizer
	@sh tools/asan.sh

valgrind: setup ## the C function under valgrind, driven by a program in C
	@sh tools/valgrind.sh

sim: setup ## random histories of whole systems for SIMTIME=60s, or SIMCOUNT of them; SEED=… plays one again
	@SEED='$(SEED)' SIMCOUNT='$(SIMCOUNT)' SIMTIME='$(SIMTIME)' sh tools/sim.sh

interop: setup ## peers of other makes alone, with each of ours through our broker, and ours through theirs (installs Node where it is missing; two minutes)
	@sh interop/install.sh
	cd interop && npm test
	cd interop && OMDP_INTEROP=1 go test -race -count=1 -timeout 5m

conformance: setup ## the conformance kit against this library; writes docs/conformance.md
	go run ./conformance/cmd -ours -patience 10s -doc docs/conformance.md

model: ## check the models of a request and of a stream with spin, every mechanism missed when taken away
	@sh tools/model.sh

cover: setup ## coverage of the tests, to cover.out
	go test -coverpkg=./... -coverprofile=cover.out ./...
	@go tool cover -func=cover.out | tail -n 1

MUTANTS ?= .
mutants: setup ## plant faults in the library, each to be found in 10 s; MUTANTS=core-token for some
	@cd tools && go run ./mutants -root .. -run '$(MUTANTS)'
