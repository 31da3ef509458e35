#!/bin/sh
# Runs govulncheck. Where the vulnerability database cannot be reached it says
# so loudly and goes on, unless KEYD_VULN_REQUIRED is set; a finding always fails.
set -u
out=$(go tool govulncheck ./... 2>&1)
code=$?
if [ $code -eq 0 ]; then
	echo "govulncheck: no known vulnerability is reached"
	exit 0
fi
case $out in
*"fetching vulnerabilities"*)
	echo "govulncheck: NOT CHECKED: the vulnerability database cannot be reached from here" >&2
	[ -z "${KEYD_VULN_REQUIRED:-}" ] && exit 0
	;;
esac
echo "$out" >&2
exit 1
