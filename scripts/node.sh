#!/bin/sh
# The tests of the official JavaScript clients, in node's own test runner
# against the program itself. "install" only fetches the clients, into a folder
# that git does not see. A machine without node is told so loudly; with CI set
# that is a failure.
set -eu
cd "$(dirname "$0")/.."

tests=cmd/keyd/testdata/node
place=bin/node

# missed says what is not proved, and ends: badly where CI is set.
missed() {
	{
		echo "*******************************************************************"
		echo "** THE TESTS OF THE OFFICIAL JAVASCRIPT CLIENTS WERE NOT RUN:"
		echo "** $1"
		echo "** npm aws-sdk v2 (data plane) and client-payment-cryptography v3"
		echo "** (control plane) are not proved against this build."
		echo "*******************************************************************"
	} >&2
	case "${CI:-}" in
	"" | 0 | false) exit 0 ;;
	esac
	echo "CI is set: this is a failure" >&2
	exit 1
}

if ! command -v node >/dev/null 2>&1 || ! command -v npm >/dev/null 2>&1; then
	missed "there is no node or no npm here; install node 18 or later"
fi
major=$(node -p 'process.versions.node.split(".")[0]')
[ "$major" -ge 18 ] || missed "node $major is too old; install 18 or later"

# The lock file pins every package by its digest; `npm ci` takes nothing else,
# and no package runs a script of its own.
mkdir -p "$place"
if ! cmp -s "$tests/package-lock.json" "$place/installed-lock.json"; then
	cp "$tests/package.json" "$tests/package-lock.json" "$place/"
	(cd "$place" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error) || missed "npm could not fetch the clients"
	cp "$tests/package-lock.json" "$place/installed-lock.json"
fi
[ "${1:-}" != install ] || exit 0

CGO_ENABLED=1 "${GO:-go}" build -race -o "$place/keyd" ./cmd/keyd
KEYD="$PWD/$place/keyd" NODE_PATH="$PWD/$place/node_modules" GORACE=atexit_sleep_ms=0 \
	node --test --test-reporter=spec "$tests"/*.test.js
