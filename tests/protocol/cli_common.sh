# Sourced by the cli_*.sh tests: a folder of their own, and ways to say what must happen.
#
# TARN names the binary. MODE=direct runs commands with nobody serving, MODE=served with a server for every pool
# that serve() is told of: the same script must pass in both.

: "${TARN:?names the tarn binary}"
MODE=${MODE:-direct}
work=$(mktemp -d "${TMPDIR:-/tmp}/tarn-cli.XXXXXX")
cd "$work"
export TARN_STATE_DIR=$work/state TARN_RUNTIME_DIR=$work/run
export LC_ALL=C.UTF-8
server_pids=()
loops=() # loop devices to take away at the end
# Debian's own where there are several: it starts fastest, and has libnbd's module.
python=/usr/bin/python3
[ -x $python ] || python=python3

cleanup() {
    status=$?
    for pid in "${server_pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    for loop in "${loops[@]}"; do
        losetup -d "$loop" 2>/dev/null || true
    done
    cd /
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
# meson ends a test that takes too long with SIGTERM.
trap 'exit 1' TERM INT

die() {
    echo "FAILED: $*" >&2
    for log in "$work"/*.log; do
        [ ! -e "$log" ] || { echo "--- $log" >&2; cat "$log" >&2; }
    done
    exit 1
}

skip() {
    echo "SKIP: $*"
    exit 77
}

# A command that hangs is ended here: what meson ends is this shell, which would wait for it.
tarn() {
    timeout -k 5 "${tarn_seconds:-120}" "$TARN" "$@" </dev/null
}

# ok COMMAND...: it must succeed; what it prints is in $out.
ok() {
    out=$("$@" 2>"$work/err") || die "'$*' failed: $(cat "$work/err")"
}

# fails STATUS PATTERN COMMAND...: it must end with STATUS and one sentence on stderr that matches.
fails() {
    local want=$1 pattern=$2 got=0 tarn_seconds=60 # for a server that is to be refused, and serves
    shift 2
    out=$("$@" 2>"$work/err") || got=$?
    [ "$got" = "$want" ] || die "'$*' ended with $got, not $want: $out $(cat "$work/err")"
    grep -q '^tarn: ' "$work/err" || die "'$*' says nothing on stderr"
    [ "$(grep -vc '^hint: ' "$work/err")" = 1 ] || die "'$*' says more than a sentence: $(cat "$work/err")"
    grep -Eq -- "$pattern" "$work/err" || die "'$*' says '$(cat "$work/err")', which lacks '$pattern'"
}

same() {
    [ "$1" = "$2" ] || die "expected '$2', have '$1' ${3:+($3)}"
}

# json PATH FILTER: a value of the JSON in $out, by python, as jq is not everywhere.
json() {
    printf '%s' "$out" | $python -I -S -c '
import json, sys
value = eval("d" + sys.argv[1], {"d": json.load(sys.stdin), "len": len, "sorted": sorted, "sum": sum, "set": set})
print(value if isinstance(value, (str, int)) else json.dumps(value))' "$1"
}

# Start a server whatever the mode is; serve_now POOL [OPTION...]
serve_now() {
    local pool=$1 pid
    shift
    : >"$work/serve.$pool.log" # what the last server said is not to be taken for this one's word
    "$TARN" serve "$pool" "$@" >>"$work/serve.$pool.log" 2>&1 </dev/null &
    pid=$!
    server_pids+=("$pid")
    server=$pid
    for _ in $(seq 600); do
        ! grep -q '^  control' "$work/serve.$pool.log" || return 0
        kill -0 "$pid" 2>/dev/null || die "the server did not come up"
        sleep 0.05
    done
    die "the server did not come up in time"
}

# End the last server politely.
serve_end() {
    local got=0
    kill -TERM "$server"
    wait "$server" || got=$?
    same "$got" 0 "exit status of the server"
}

# In served mode only.
serve() {
    [ "$MODE" = direct ] || serve_now "$@"
}
unserve() {
    [ "$MODE" = direct ] || serve_end
}
