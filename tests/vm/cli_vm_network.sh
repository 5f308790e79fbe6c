#!/bin/bash
# A passt that ends while its machine runs: another one is started, however often and however it fails; it gets no
# descriptor but its own; and none is left. passt is played: a script that goes to the background as it does, and ends with
# its connection.
set -eu
here=$(dirname "$(readlink -f "$0")")
. "$here/../protocol/cli_common.sh"
. "$here/machines.sh"

mkdir bin
cat >bin/passt <<END_OF_SCRIPT
#!/bin/bash
echo "\$*" >>"$work/calls"
ls -l /proc/self/fd | sed -n 's/.* \([0-9]*\) -> \(.*\)/\1 \2/p' | grep -v '/proc/' >"$work/descriptors"
if [ -e "$work/refuse" ]; then
    echo "no template interface" >&2
    exit 1
fi
if [ -e "$work/hang" ]; then
    echo \$\$ >"$work/hanging"
    exec sleep 60
fi
(exec 2>/dev/null; echo \$BASHPID >"$work/pid.new"; mv "$work/pid.new" "$work/pid"; exec cat <&3 >/dev/null) &
exit 0
END_OF_SCRIPT
chmod +x bin/passt
export PATH=$work/bin:$PATH

echo kernel >kernel
printf '%s\n' 'name: web' 'memory: 64M' 'kernel: kernel' 'network:' '  - type: user' '    forward: ["tcp:127.0.0.1:8080:80"]' \
    >web.yaml
log=state/vm/web/log
lines() { # FILE PATTERN
    grep -Ec -- "$2" "$1" || true
}
wait_lines() { # N FILE PATTERN
    for _ in $(seq 1200); do
        [ "$(lines "$2" "$3")" -lt "$1" ] || return 0
        sleep 0.05
    done
    die "'$2' has '$3' $(lines "$2" "$3") times, not $1: $(cat "$2")"
}
kill_passt() {
    local pid
    pid=$(cat pid)
    rm pid
    kill -KILL "$pid"
}

ok tarn vm start web.yaml
same "$(cat calls)" "--quiet --fd 3 --tcp-ports 127.0.0.1/8080:80"

# ---- it is killed, and killed again ----
for i in 1 2; do
    kill_passt
    wait_lines "$i" $log "network card 0: passt has ended"
    wait_lines "$i" $log "network card 0 is back: passt was started again"
done
same "$(lines calls .)" 3
same "$(sort -u calls)" "--quiet --fd 3 --tcp-ports 127.0.0.1/8080:80"
same "$(cut -d ' ' -f 1 descriptors | sort -n | tr '\n' ' ')" "0 1 2 3 " "$(cat descriptors)"
has_said web "^connected nic0" || die "the guest has no cable: $(said web)"

# ---- it cannot begin: that is said once, and it is tried until it can ----
touch refuse
kill_passt
wait_lines 5 calls .
same "$(lines $log "network card 0 stays without a network: passt does not begin: no template interface")" 1
same "$(state web)" running
rm refuse
wait_lines 3 $log "network card 0 is back"
ok tarn vm stop web
for _ in $(seq 200); do
    kill -0 "$(cat pid)" 2>/dev/null || break
    sleep 0.05
done
! kill -0 "$(cat pid)" 2>/dev/null || die "passt is left"
none_left

# ---- the machine ends while another is about to begin ----
ok tarn vm start web.yaml
touch hang
kill_passt
wait_for_line hanging .
same "$(state web)" running
ok tarn vm stop web
! kill -0 "$(cat hanging)" 2>/dev/null || die "a passt that has not begun is left"
none_left
echo "vm_network: passed"
