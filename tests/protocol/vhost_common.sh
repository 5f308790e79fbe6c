# Sourced after cli_common.sh: front ends of vhost-user that stay, and what there is to see of them.
#
#   wait_for FILE...          until all are there
#   wait_for_text FILE TEXT   until it holds this
#   connect SOCKET NAME       a front end; $pid; NAME.capacity and others say what it was told (vhost_client.py)

vhost_client=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/vhost_client.py

wait_for() {
    local file
    for file in "$@"; do
        for _ in $(seq 600); do
            [ ! -e "$file" ] || continue 2
            sleep 0.05
        done
        die "'$file' did not come"
    done
}

wait_for_text() {
    for _ in $(seq 600); do
        [ "$(cat "$1" 2>/dev/null)" != "$2" ] || return 0
        sleep 0.05
    done
    die "'$1' holds '$(cat "$1")', not '$2'"
}

connect() {
    $python "$vhost_client" "$1" "$work/$2" 2>"$work/$2.log" &
    pid=$!
    server_pids+=("$pid")
    wait_for "$work/$2.capacity"
}
