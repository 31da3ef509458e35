#!/bin/sh
# Installs what the demo needs and the machine has not: SoftHSM, a C compiler;
# with the argument "test" also the tests' second module, softokn of NSS,
# promtool of Prometheus, and the official JavaScript clients through npm. As
# root through apt; otherwise it says what to install.
set -eu

missing=""
command -v cc >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"

# first prints the first of its arguments that is a file.
first() {
	for path in "$@"; do
		if [ -n "$path" ] && [ -e "$path" ]; then
			echo "$path"
			return
		fi
	done
}

softhsm=$(first "${KEYD_SOFTHSM:-}" \
	/usr/lib/softhsm/libsofthsm2.so \
	/usr/lib/*/softhsm/libsofthsm2.so \
	/usr/lib64/pkcs11/libsofthsm2.so \
	/usr/local/lib/softhsm/libsofthsm2.so)
[ -n "$softhsm" ] || missing="$missing softhsm2"

if [ "${1:-}" = test ]; then
	softokn=$(first "${KEYD_SOFTOKN:-}" \
		/usr/lib/*/libsoftokn3.so \
		/usr/lib/*/nss/libsoftokn3.so \
		/usr/lib64/libsoftokn3.so \
		/usr/lib/libsoftokn3.so \
		/usr/local/lib/libsoftokn3.so)
	[ -n "$softokn" ] || missing="$missing libnss3"
	# The unit is judged by systemd's own tool; completion is tried in each shell.
	command -v systemd-analyze >/dev/null 2>&1 || missing="$missing systemd"
	command -v zsh >/dev/null 2>&1 || missing="$missing zsh"
	command -v fish >/dev/null 2>&1 || missing="$missing fish"
	# What follows the calls of a daemon where no file system can be mounted.
	command -v strace >/dev/null 2>&1 || missing="$missing strace"
	# What checks the log besides keyd: the example for auditors, and openssl.
	command -v python3 >/dev/null 2>&1 || missing="$missing python3"
	command -v openssl >/dev/null 2>&1 || missing="$missing openssl"
	# promtool, which tries the alert rules.
	command -v promtool >/dev/null 2>&1 || missing="$missing prometheus"
	# A receiver of the audit log, with both of its TLS libraries.
	if [ ! -x /usr/sbin/rsyslogd ] || [ -z "$(first /usr/lib/*/rsyslog/lmnsd_ossl.so)" ] || [ -z "$(first /usr/lib/*/rsyslog/lmnsd_gtls.so)" ]; then
		missing="$missing rsyslog rsyslog-openssl rsyslog-gnutls"
	fi
	# The official JavaScript clients; it says so where there is no node.
	sh "$(dirname "$0")/node.sh" install
fi

[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "keyd needs:$missing (SoftHSM and softokn of NSS are software PKCS#11 modules). Install them and try again; a module in an unusual place is named by KEYD_SOFTHSM or KEYD_SOFTOKN." >&2
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
