#!/bin/sh
# Checks one log of keyd with the fsck of Tessera v1.0.4, which keyd's authors
# did not write (L-144):
#
#	scripts/fsck.sh FOLDER VKEY SIZE ROOT
#
# FOLDER is the log's folder (sec, ops/2026-11) or a copy, VKEY a file with its
# verification key from the ceremony, one line; SIZE and ROOT are those of a
# checkpoint whose signature was checked before (docs/AUDIT.md). FSCK names the
# program, else it is built from internal/oracle; FSCK_TIMEOUT says how long it
# may take, 1h unless set.
#
# Its exit status says nothing: with --ui=false it is 0 for a damaged log too, so
# only the line of success counts. It never ends when as many tiles differ as it
# has workers: there are many of them, and the time is bounded (L-145).
set -eu
[ $# -eq 4 ] || { echo "usage: scripts/fsck.sh FOLDER VKEY SIZE ROOT" >&2; exit 2; }
folder=$(cd "$1" && pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
if [ -z "${FSCK:-}" ]; then
	FSCK=$root/bin/fsck
	mkdir -p "$root/bin"
	if ! (cd "$root/internal/oracle" && ${GO:-go} build -o "$FSCK" github.com/transparency-dev/tessera/cmd/fsck); then
		echo "fsck.sh: fsck could not be built; it needs the module proxy (or its modules in the cache) once" >&2
		exit 2
	fi
fi
out=$(timeout "${FSCK_TIMEOUT:-1h}" "$FSCK" --storage_url="file://$folder/" --public_key="$2" --ui=false -N 64 2>&1) || :
if printf '%s\n' "$out" | grep -qF "Successfully fsck'd log with size $3 and root $4 "; then
	echo "OK size=$3 root=$4"
	exit 0
fi
printf '%s\n' "$out" | cut -c1-200 | tail -n 5 >&2
echo "NOT VERIFIED" >&2
exit 1
