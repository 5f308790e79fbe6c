#!/bin/bash
# The units for systemd are what systemd takes for right, name nothing that it does not know, and keep the server away
# from what it has no use for. UNITS names the folder that they were made in.
set -eu
sources=$(cd "$(dirname "$0")/../../server/systemd" && pwd)
. "$(dirname "$0")/../protocol/cli_common.sh"
command -v systemd-analyze >/dev/null || skip "systemd-analyze is not installed"

# What they start is not installed here: the binary under test stands in for it.
sed "s|(.*bin/tarn |($(realpath "$TARN") |" "$UNITS/reload" >reload
chmod +x reload
sed "s|^ExecStart=[^ ]*|ExecStart=$(realpath "$TARN")|; s|^ExecReload=[^ ]*|ExecReload=$work/reload|" \
    "$UNITS/tarn@.service" >tarn@.service
cp "$sources/tarn@.socket" "$sources/tarn-pools.target" .
sed "s|^ExecStart=[^ ]*|ExecStart=$(realpath "$TARN")|" "$UNITS/tarn-vm@.service" >tarn-vm@.service
sed -E "s#^(Exec[A-Za-z]*=-)[^ ]*#\1$(realpath "$TARN")#" "$UNITS/tarn-vms.service" >tarn-vms.service
ln -s tarn@.service tarn@tank.service
ln -s tarn-vm@.service tarn-vm@web.service
ln -s tarn@.socket tarn@tank.socket
# Of this machine's own units it may complain as well; what it says of ours names them.
verified=0
systemd-analyze verify --recursive-errors=no --man=no ./tarn@tank.service ./tarn@tank.socket ./tarn-vm@web.service ./tarn-vms.service \
    ./tarn-pools.target \
    >verify 2>&1 || verified=$?
! grep -Eq 'tarn(-vm)?@|tarn-vms|tarn-pools' verify || die "systemd finds fault: $(cat verify)"
same "$verified" 0 "status of systemd-analyze verify: $(cat verify)"

# 10.0 is a service without any restriction; in tenths.
systemd-analyze security --offline=yes --threshold=45 --no-pager ./tarn@tank.service >security 2>&1 ||
    die "the service may do more than it needs: $(tail -1 security)"

# The options that the unit gives are those of the command: none but the pool, and what a file adds.
grep -qx "ExecStart=/.*/tarn serve %i \$TARN_SERVE_OPTIONS" "$UNITS/tarn@.service" || die "it starts something else"

# One machine that does not start is no reason to end the others, and none is left to the end of the whole host.
grep -qx "ExecStart=-/.*/tarn vm start --autostart /etc/tarn/vm" "$UNITS/tarn-vms.service" || die "it starts something else"
grep -qx "ExecStopPost=-/.*/tarn vm stop --autostart" "$UNITS/tarn-vms.service" || die "it stops something else"
grep -Eq "^Before=(.* )?tarn-pools.target" "$UNITS/tarn@.service" && grep -qx "Wants=tarn-pools.target" "$UNITS/tarn@.service" ||
    die "nothing can wait for a pool's server"
for unit in tarn-vms.service tarn-vm@.service; do
    grep -Eq "^After=.* tarn-pools.target" "$UNITS/$unit" || die "a pool's server may end before the machines of $unit"
done

# What 'systemctl reload' sends leaves a server that has nothing to read as it is.
export NOTIFY_SOCKET=$work/notify
ok tarn pool create tank d0 --file-size 64M
serve_now tank
MAINPID=$server ./reload tank
ok tarn volume create tank/web 1M
kill -0 "$server" || die "a reload ends the server"
serve_end

# With TARN_RELOAD=takeover it is a new server, with the options that are for such a one.
serve_now tank --nbd unix:sock --control=run/tank.control
printf '%064d' 0 | sed 's/^/me:/' >keys
reload() {
    MAINPID=$server TARN_RELOAD=takeover ./reload tank --nbd unix:sock --vhost-user=vms "$@" >reload.log 2>&1
}
! reload --tls-psk none || die "a reload without a server that takes over succeeds"
kill -0 "$server" || die "a reload that failed ends the server"
before=$server
reload --tls-psk keys --threads 2 || die "a reload fails: $(cat reload.log)"
status=0
wait "$before" || status=$?
same "$status" 0 "exit status of the server that was taken over"
for _ in $(seq 600); do
    ok tarn pool status tank --json
    server=$(json "['server']['pid']")
    [ "$server" = "$before" ] || break
    sleep 0.05
done
server_pids+=("$server")
tr '\0' ' ' <"/proc/$server/cmdline" >words
same "$(sed 's/^[^ ]*tarn //' words)" "serve tank --tls-psk keys --threads 2 --takeover " "the new server's options"
[ -S sock ] && [ ! -e vms ] || die "it listens elsewhere"
kill "$server"
for _ in $(seq 600); do
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
done
[ ! -e sock ] || die "it does not end at SIGTERM"
echo "units: passed"
