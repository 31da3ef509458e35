#!/bin/sh
# pgo.sh makes cmd/keyd/default.pgo, by which the compiler knows the paths that a
# loaded daemon takes: a processor profile of all rows of `keyd bench`, taken on a
# quiet machine. It holds names of functions and counts, nothing of a request. The
# repository keeps none (docs/ARCHITECTURE.md, section 12); go build uses the file
# while it is there.
set -eu
cd "$(dirname "$0")/.."
raw=$(mktemp)
trap 'rm -f "$raw"' EXIT
make -s build
bin/keyd bench --duration 10s --profile "$raw"
go tool pprof -proto -output cmd/keyd/default.pgo "$raw"
ls -l cmd/keyd/default.pgo
