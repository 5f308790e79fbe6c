#!/bin/bash
# The units for systemd are what systemd takes for right, name nothing that it does not know, and keep the server away
# from what it has no use for. UNITS names the folder that they were made in.
set -eu
sources=$(cd "$(dirname "$0")/../../server/systemd" && pwd)
. "$(dirname "$0")/../protocol/cli_common.sh"
command -v systemd-analyze >/dev/null || skip "systemd-analyze is not installed"

# What they start is not installed here: the binary under test stands in for it.
sed "s|^ExecStart=[^ ]*|ExecStart=$(realpath "$TARN")|" "$UNITS/tarn@.service" >tarn@.service
cp "$sources/tarn@.socket" .
ln -s tarn@.service tarn@tank.service
ln -s tarn@.socket tarn@tank.socket
# Of this machine's own units it may complain as well; what it says of ours names them.
verified=0
systemd-analyze verify --recursive-errors=no --man=no ./tarn@tank.service ./tarn@tank.socket >verify 2>&1 || verified=$?
! grep -q 'tarn@' verify || die "systemd finds fault: $(cat verify)"
same "$verified" 0 "status of systemd-analyze verify: $(cat verify)"

# 10.0 is a service without any restriction; in tenths.
systemd-analyze security --offline=yes --threshold=45 --no-pager ./tarn@tank.service >security 2>&1 ||
    die "the service may do more than it needs: $(tail -1 security)"

# The options that the unit gives are those of the command: none but the pool, and what a file adds.
grep -qx "ExecStart=/.*/tarn serve %i \$TARN_SERVE_OPTIONS" "$UNITS/tarn@.service" || die "it starts something else"

# What 'systemctl reload' sends leaves a server that has nothing to read as it is.
export NOTIFY_SOCKET=$work/notify
ok tarn pool create tank d0 --file-size 64M
serve_now tank
kill -HUP "$server"
ok tarn volume create tank/web 1M
kill -0 "$server" || die "a reload ends the server"
serve_end
echo "units: passed"
