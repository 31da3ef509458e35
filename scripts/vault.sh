#!/bin/sh
# Builds the Vault server of vault-test and runs keyd's tests against it (C-12).
# A cold build takes five minutes on two cores and 1.2 GB of build cache, a warm
# one seconds. Where it cannot be built nothing was tested, and this fails.
set -eu
GO=${GO:-go}
root=$(cd "$(dirname "$0")/.." && pwd)
server=$root/bin/vault-test
mkdir -p "$root/bin"
if ! (cd "$root/vault-test" && $GO build -o "$server" .); then
	echo >&2
	echo "test-vault: NOT TESTED: the Vault server of vault-test could not be built here." >&2
	echo "test-vault: it needs the module proxy (or its modules in the cache) once, and memory for the linker." >&2
	exit 1
fi
cd "$root"
$GO vet -tags vault ./internal/credentials/... ./cmd/keyd
KEYD_VAULT_SERVER=$server CGO_ENABLED=1 $GO test -race -timeout 10m -tags vault -count=1 ./internal/credentials/vault
KEYD_VAULT_SERVER=$server CGO_ENABLED=1 $GO test -race -timeout 10m -tags vault -count=1 -run '^TestVault' ./cmd/keyd
