# What one does with this checkout. `make` or `make help` lists it.
# Go is all that is needed; the demo uses Docker where it answers.

VERSION := $(shell git describe --always --dirty --tags 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
export CGO_ENABLED ?= 0

.DEFAULT_GOAL := help
.PHONY: help demo build test check lint bench bench-cluster bench-network fmt proto clean FORCE

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: bin/orch bin/demo ## TICK on this machine: see http://127.0.0.1:8888; CHECK=1 proves it and ends
	@bin/demo -orch bin/orch $(if $(CHECK),-check) $(if $(RUNTIME),-runtime $(RUNTIME))

build: bin/orch ## bin/orch, static, with the version inside

bin/orch: FORCE
	go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/orch

bin/demo: FORCE
	go build -trimpath -ldflags '-s -w' -o $@ ./playbooks/demo

check: lint ## the fast tests, vet, staticcheck, gofmt, the layout: before each commit
	go test -short ./...

lint:
	@unformatted=$$(gofmt -l agent builtins cmd engine playbooks); \
	if [ -n "$$unformatted" ]; then echo "gofmt these (make fmt):"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...

# The race detector needs a C compiler; without one the tests run without it,
# except under CI.
test: lint build ## everything, with Docker, namespaces and sshd where they are (CI=true: they must be)
	@if command -v $$(go env CC) >/dev/null || [ -n "$$CI" ]; then \
		echo CGO_ENABLED=1 go test -race -timeout 20m ./...; CGO_ENABLED=1 go test -race -timeout 20m ./...; \
	else echo "no C compiler: without the race detector"; go test -timeout 20m ./...; fi
	@echo "what the race detector leaves no memory for:"
	go test -run Sandbox ./playbooks
	bin/orch test playbooks/

bench: build ## how fast orch is, beside a peer or a limit in the same run; PARTS=1: the parts, too
	go run ./cmd/bench -orch bin/orch
	$(if $(PARTS),go test -run '^$$$$' -bench . -benchmem ./...)

bench-cluster: build ## a cluster of three hosts beside Docker Swarm on the same; needs root and Docker
	go run ./cmd/bench -cluster -orch bin/orch

bench-network: build ## the data plane beside HAProxy (apt-get install haproxy wrk), and on three hosts; needs root and Docker
	go run ./cmd/bench -network -orch bin/orch

fmt: build ## gofmt, and orch fmt for the playbooks
	gofmt -w agent builtins cmd engine playbooks
	bin/orch fmt playbooks

proto: ## the Go code of engine/api/*.proto
	@command -v protoc >/dev/null || { echo "protoc is missing: apt-get install protobuf-compiler"; exit 1; }
	go build -o bin/ google.golang.org/protobuf/cmd/protoc-gen-go connectrpc.com/connect/cmd/protoc-gen-connect-go
	PATH="$(CURDIR)/bin:$$PATH" protoc --go_out=. --go_opt=module=orch \
		--connect-go_out=. --connect-go_opt=module=orch engine/api/*.proto

clean: ## removes bin/
	rm -rf bin

FORCE:
