# What the scripts of this folder share: where things are, ports, processes. To be sourced.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/freshet
kafka_jars=$cache/kafka-4.3.1
state=${FRESHET_DEV_DIR:-$root/.freshet}

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# The directory of PostgreSQL's server programs, newest version first.
postgres_bin() {
    local dir
    for dir in "${FRESHET_DEV_POSTGRES_BIN:-}" "$(pg_config --bindir 2>/dev/null || true)" \
        $(ls -d /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /opt/homebrew/opt/postgresql@*/bin 2>/dev/null | sort -rV); do
        if [ -n "$dir" ] && [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
            printf '%s' "$dir"
            return
        fi
    done
    return 1
}

# Whether the process of a pid file still is the one that was started: its command line holds a word.
alive() { # FILE WORD
    [ -f "$1" ] || return 1
    local pid
    pid=$(head -n 1 "$1")
    [ -r "/proc/$pid/cmdline" ] && tr '\0' ' ' <"/proc/$pid/cmdline" | grep -qF -- "$2"
}

# Stops the process of a pid file: politely, and after 20 s not.
stop_pid() { # FILE WORD
    alive "$1" "$2" || { rm -f "$1"; return 0; }
    local pid
    pid=$(head -n 1 "$1")
    kill -CONT "$pid" 2>/dev/null || true
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 200); do
        alive "$1" "$2" || break
        sleep 0.1
    done
    if alive "$1" "$2"; then kill -9 "$pid" 2>/dev/null || true; fi
    rm -f "$1"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# The first of sixty-four ports in a row, drawn once for a state directory, so that two checkouts do not meet.
base_port() {
    if [ ! -f "$state/base-port" ]; then
        local base try taken port
        for try in $(seq 0 100); do
            base=$((21000 + ($(printf '%s' "$state" | cksum | cut -d' ' -f1) + try * 37) % 170 * 64))
            taken=
            for port in 0 2 3 4 5 6 7 12 22; do
                if port_answers $((base + port)); then taken=1; fi
            done
            [ -n "$taken" ] || break
        done
        mkdir -p "$state"
        printf '%s\n' "$base" >"$state/base-port"
    fi
    cat "$state/base-port"
}

# Postgres refuses to run as root; what it writes then belongs to an unprivileged account, in a place it can reach.
postgres_home() {
    if [ "$(id -u)" = 0 ]; then
        printf '/var/tmp/freshet-%s' "$(printf '%s' "$state" | cksum | cut -d' ' -f1)"
    else
        printf '%s/postgres' "$state"
    fi
}

as_postgres() {
    if [ "$(id -u)" = 0 ]; then
        setpriv --reuid=nobody --regid=nogroup --clear-groups env -C "$(postgres_home)" "$@"
    else
        "$@"
    fi
}
