#!/bin/sh
# SPDX-License-Identifier: BSD-3-Clause
# Runs tailscaled in a container, logs in and applies settings by the TS_* variables (packaging/README.md).
set -eu

say() { echo "entrypoint: $*" >&2; }
true_text() { case ${1:-} in 1 | t | T | true | TRUE | True) return 0 ;; *) return 1 ;; esac; }

for unsupported in TS_KUBE_SECRET TS_SERVE_CONFIG TS_TAILNET_TARGET_IP TS_TAILNET_TARGET_FQDN TS_CLIENT_ID TS_CLIENT_SECRET TS_ID_TOKEN; do
    eval "value=\${$unsupported:-}"
    [ -z "$value" ] || say "$unsupported is not supported and ignored"
done

socket=${TS_SOCKET:-/tmp/tailscaled.sock}
mkdir -p "$(dirname "$socket")"
set -- --socket="$socket"
if [ -n "${TS_STATE_DIR:-}" ]; then
    mkdir -p "$TS_STATE_DIR"
    set -- "$@" --statedir="$TS_STATE_DIR"
else
    set -- "$@" --state=mem: --statedir=/tmp
fi
if true_text "${TS_USERSPACE:-false}"; then
    set -- "$@" --tun=userspace-networking
elif [ ! -c /dev/net/tun ]; then
    mkdir -p /dev/net
    mknod /dev/net/tun c 10 200 || { say "no /dev/net/tun: start the container with --device /dev/net/tun --cap-add NET_ADMIN"; exit 1; }
fi
[ -z "${TS_SOCKS5_SERVER:-}" ] || set -- "$@" --socks5-server="$TS_SOCKS5_SERVER"
[ -z "${TS_OUTBOUND_HTTP_PROXY_LISTEN:-}" ] || set -- "$@" --outbound-http-proxy-listen="$TS_OUTBOUND_HTTP_PROXY_LISTEN"
# Lists of flags.
# shellcheck disable=SC2086
set -- "$@" ${TS_TAILSCALED_EXTRA_ARGS:-}

# Forwarding is the container's own business, as nobody else lives in it.
if [ -n "${TS_ROUTES:-}${TS_DEST_IP:-}" ] && ! true_text "${TS_USERSPACE:-false}"; then
    for key in net/ipv4/ip_forward net/ipv6/conf/all/forwarding; do
        [ ! -e /proc/sys/$key ] || [ "$(cat /proc/sys/$key)" = 1 ] || echo 1 2>/dev/null >/proc/sys/$key ||
            say "cannot write $key: start the container with --sysctl $(echo $key | tr / .)=1"
    done
fi

tailscaled "$@" &
daemon=$!
stop() { kill -TERM "$daemon" 2>/dev/null || true; }
trap stop TERM INT

cli() { tailscale --socket="$socket" "$@"; }
tries=$((${TS_BOOT_TIMEOUT:-60} * 10))
until cli status --json >/dev/null 2>&1; do
    kill -0 "$daemon" 2>/dev/null || { say "tailscaled has ended"; wait "$daemon" || exit $?; exit 1; }
    tries=$((tries - 1))
    [ "$tries" -gt 0 ] || { say "tailscaled does not answer"; stop; exit 1; }
    sleep 0.1
done

# The same settings for both verbs. TS_ROUTES set but empty takes routes away; unset leaves them.
set -- --accept-dns="${TS_ACCEPT_DNS:-false}"
[ -z "${TS_ROUTES+set}" ] || set -- "$@" --advertise-routes="$TS_ROUTES"
[ -z "${TS_HOSTNAME:-}" ] || set -- "$@" --hostname="$TS_HOSTNAME"

state() { cli status --json 2>/dev/null | sed -n 's/^[[:space:]]*"BackendState": "\([A-Za-z]*\)",*$/\1/p'; }
if true_text "${TS_AUTH_ONCE:-false}" && [ "$(state)" != NeedsLogin ]; then
    cli set "$@"
    [ "$(state)" = Running ] || cli up
else
    key=${TS_AUTHKEY:-${TS_AUTH_KEY:-}}
    if [ -n "$key" ]; then
        # Not on a command line, which everybody may read.
        umask 077
        case $key in
        file:*) set -- "$@" --auth-key="$key" ;;
        *)
            printf '%s' "$key" >/tmp/authkey
            set -- "$@" --auth-key=file:/tmp/authkey
            ;;
        esac
    fi
    # shellcheck disable=SC2086
    cli up "$@" ${TS_EXTRA_ARGS:-} || { rm -f /tmp/authkey; stop; wait "$daemon" || true; exit 1; }
    rm -f /tmp/authkey
fi
unset TS_AUTHKEY TS_AUTH_KEY key

if [ -n "${TS_DEST_IP:-}" ]; then
    own=$(cli ip -4)
    iptables -t nat -I PREROUTING 1 -d "$own" -j DNAT --to-destination "$TS_DEST_IP"
    iptables -t nat -A POSTROUTING -d "$TS_DEST_IP" -j MASQUERADE
fi
say "running"

# A signal interrupts the first wait; the second one collects the daemon's exit code.
code=0
wait "$daemon" || code=$?
if kill -0 "$daemon" 2>/dev/null; then
    code=0
    wait "$daemon" || code=$?
fi
exit "$code"
