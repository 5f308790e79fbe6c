# Sourced by the tests of 'tarn vm' after cli_common.sh: machines whose VMM has no guest (fake_vmm.c), and that none is left.
wait_for_line() { # FILE PATTERN
    for _ in $(seq 400); do
        ! grep -Eq -- "$2" "$1" 2>/dev/null || return 0
        sleep 0.05
    done
    die "'$1' lacks '$2': $(cat "$1")"
}

# what the guest has said so far
said() { # NAME
    timeout 20 "$TARN" vm console "$1" </dev/null >"$work/$1.said" 2>&1 &
    local pid=$!
    sleep 0.3
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
    cat "$work/$1.said"
}

# The same, until it has said it.
has_said() { # NAME PATTERN
    for _ in $(seq 60); do
        ! grep -Eq -- "$2" <<<"$(said "$1")" || return 0
    done
    return 1
}

types() { # NAME WORD
    : >"$work/$1.typed"
    # Not a pipeline, of which the sleeper would be waited for.
    timeout 20 "$TARN" vm console "$1" < <(printf '%s\n' "$2"; exec sleep 20 2>/dev/null) >"$work/$1.typed" 2>&1 &
    local pid=$!
    for _ in $(seq 300); do # until it is connected, and shows what was said before
        [ ! -s "$work/$1.typed" ] || break
        sleep 0.05
    done
    sleep 1 # until what was typed had its effect
    kill "$pid" 2>/dev/null || true
    wait "$pid" 2>/dev/null || true
}

state() { # NAME
    ok tarn vm show "$1" --json
    json "['state']"
}

wait_state() { # NAME STATE
    for _ in $(seq 400); do
        [ "$(state "$1")" != "$2" ] || return 0
        sleep 0.05
    done
    die "'$1' is '$(state "$1")', not '$2'"
}

processes() {
    local pid
    for pid in /proc/[0-9]*; do
        [ ! "$pid/exe" -ef "$TARN" ] ||
            ! tr '\0' '\n' <"$pid/environ" 2>/dev/null | grep -qx "TARN_STATE_DIR=$work/state" || echo "${pid#/proc/}"
    done
}

# the process that was started to serve a pool for machines
pool_server() { # POOL
    for p in $(processes); do
        ! tr "\0" " " <"/proc/$p/cmdline" | grep -q "serve $1 --while-used" ||
            [ "$(cat "/proc/$p/comm")" = tarn-connector ] || echo "$p"
    done
}

none_left() {
    for _ in $(seq 400); do
        [ -n "$(processes)" ] || return 0
        sleep 0.05
    done
    die "processes are left: $(processes | xargs ps -fp)"
}

cleanup_machines() {
    status=$?
    # shellcheck disable=SC2046
    kill -KILL $(processes) 2>/dev/null || true
    (exit "$status")
    cleanup
}
trap cleanup_machines EXIT
