#!/bin/sh
# Installs what the tests and the demo need and the machine has not: SoftHSM, a
# C compiler. As root through apt; otherwise it says what to install.
set -eu

missing=""
command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"

found=""
for module in "${KEYD_SOFTHSM:-}" \
	/usr/lib/softhsm/libsofthsm2.so \
	/usr/lib/*/softhsm/libsofthsm2.so \
	/usr/lib64/pkcs11/libsofthsm2.so \
	/usr/local/lib/softhsm/libsofthsm2.so; do
	if [ -n "$module" ] && [ -e "$module" ]; then
		found=$module
		break
	fi
done
[ -n "$found" ] || missing="$missing softhsm2"

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "keyd needs:$missing (SoftHSM is a software PKCS#11 module). Install them and try again; a module in an unusual place is named by KEYD_SOFTHSM." >&2
	exit 1
fi
as_root=""
if [ "$(id -u)" -ne 0 ]; then
	if ! command -v sudo >/dev/null 2>&1; then
		echo "keyd needs:$missing. As root: apt-get install$missing" >&2
		exit 1
	fi
	as_root="sudo"
fi
echo "installing:$missing"
$as_root apt-get update -qq
# shellcheck disable=SC2086 # the list is words
DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends $missing >/dev/null
