#!/bin/sh
# Installs keyd below DESTDIR and PREFIX: `make install`. The configuration, the
# token and the certificates are the site's; nothing there is touched.
set -eu

program=$1
root=${DESTDIR:-}
prefix=${PREFIX:-/usr}

put() { # MODE FILE PLACE
	install -D -m "$1" "$2" "$root$3"
}

put 0755 "$program" "$prefix/bin/keyd"
# The unit names the program by its place.
unit=$(mktemp)
trap 'rm -f "$unit"' EXIT
sed "s#^ExecStart=/usr/bin/keyd#ExecStart=$prefix/bin/keyd#" deploy/systemd/keyd.service >"$unit"
put 0644 "$unit" /usr/lib/systemd/system/keyd.service
put 0644 deploy/systemd/keyd.sysusers /usr/lib/sysusers.d/keyd.conf
put 0644 deploy/systemd/keyd.tmpfiles /usr/lib/tmpfiles.d/keyd.conf
put 0644 deploy/systemd/softhsm.conf "$prefix/share/doc/keyd/softhsm.conf"
put 0644 docs/OPERATIONS.md "$prefix/share/doc/keyd/OPERATIONS.md"
put 0644 LICENSE "$prefix/share/doc/keyd/LICENSE"

completion() { # SHELL PLACE
	install -d -m 0755 "$root$(dirname "$2")"
	"$program" completion "$1" >"$root$2"
	chmod 0644 "$root$2"
}
completion bash "$prefix/share/bash-completion/completions/keyd"
completion zsh "$prefix/share/zsh/vendor-completions/_keyd"
completion fish "$prefix/share/fish/vendor_completions.d/keyd.fish"
