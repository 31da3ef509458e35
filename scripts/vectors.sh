#!/bin/sh
# Runs the vector files over Go's ciphers and through each PKCS#11 module, and
# prints how many cases of which file went where.
set -eu

out=$(mktemp)
trap 'rm -f "$out"' EXIT
if ! CGO_ENABLED=1 "${GO:-go}" test -count=1 -v -run '^TestVectors$' ./softhsm-test >"$out" 2>&1; then
	cat "$out"
	exit 1
fi
sed -n 's/^.*vectors: //p' "$out"
