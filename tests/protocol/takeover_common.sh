# Sourced after cli_common.sh: servers that follow one another.
#
#   take_over POOL... [OPTION...]   a new server in the place of $server, which must end with 0; $server is the new one then
#   stays COMMAND...                a takeover that must fail, by this command, and change nothing

n_takeovers=0

take_over() {
    local old=$server got=0
    n_takeovers=$((n_takeovers + 1))
    "$TARN" serve "$@" --takeover >"$work/take.$n_takeovers.log" 2>&1 </dev/null &
    server=$!
    server_pids+=("$server")
    for _ in $(seq 600); do
        ! grep -q '^  control' "$work/take.$n_takeovers.log" || break
        kill -0 "$server" 2>/dev/null || die "the new server did not come up"
        sleep 0.05
    done
    grep -q '^  control' "$work/take.$n_takeovers.log" || die "the new server did not come up in time"
    wait "$old" || got=$?
    same "$got" 0 "exit status of the old server"
    grep -q "taken over from process $old; " "$work/take.$n_takeovers.log" || die "the new server does not say so"
}

stays() {
    "$@"
    kill -0 "$server" 2>/dev/null || die "after '$*' the server has ended"
    ok tarn volume list tank
    same "$(grep -c 'has taken over\|has not taken over' "$work"/serve.*.log "$work"/take.*.log 2>/dev/null |
        awk -F: '{ n += $NF } END { print n + 0 }')" "$((n_takeovers + ${n_failed:-0}))" "takeovers that began"
}
