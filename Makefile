# `make check` is what has to pass before a change lands; .ci/run calls it.

GO ?= go
FUZZTIME ?= 5s
PACKAGES = ./...

.PHONY: build check gofmt vet staticcheck race fuzz generate generate-check fmt-check bench demo

build:
	$(GO) build -trimpath -o scepgate ./cmd/scepgate

check: gofmt vet staticcheck generate-check fmt-check fuzz race

gofmt:
	@out=$$(gofmt -l $$(git ls-files '*.go')); if [ -n "$$out" ]; then echo "gofmt would change:"; echo "$$out"; exit 1; fi

vet:
	$(GO) vet $(PACKAGES)
	GOOS=windows $(GO) vet $(PACKAGES)

staticcheck:
	$(GO) tool staticcheck $(PACKAGES)

# The Go code of plugins/proto, from its .proto files; needs nothing but Go.
generate:
	$(GO) run ./plugins/proto/generate plugins/proto

# What generating would write is what is there, and go.mod is tidy.
generate-check:
	$(GO) mod tidy -diff
	@out=$$(mktemp -d) && trap 'rm -rf "$$out"' EXIT && \
	$(GO) run ./plugins/proto/generate plugins/proto "$$out" && \
	{ diff -ru -x '*.proto' -x generate plugins/proto "$$out" || { echo 'run `make generate`'; exit 1; }; }

# The example configuration is formatted as `caddy fmt` would.
fmt-check:
	$(GO) run ./cmd/scepgate fmt --diff Caddyfile.example

# The import table and the golden configurations are tests among these. What
# drives the real binary as a process has no races of its own to find: -short
# leaves it to `go test ./...`.
race:
	$(GO) test -race -timeout 20m $$($(GO) list $(PACKAGES) | grep -v /integration)
	$(GO) test -race -short -timeout 20m ./integration/...

# Every fuzz target for FUZZTIME each.
fuzz:
	.ci/fuzz $(FUZZTIME)

bench:
	$(GO) test -run '^$$' -bench . ./integration/bench

demo:
	$(GO) run ./integration/demo
