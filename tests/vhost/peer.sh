#!/bin/bash
# peer.sh PEER PROGRAM [ARGUMENT]... - runs a test with a server of servers.sh, whose socket is VHOST_SOCKET.
# Its name is VHOST_PEER, its pid SERVER_PID.
set -eu
. "$(dirname "$(readlink -f "$0")")/servers.sh"

export VHOST_PEER=$1
shift
make_disk "$VHOST_PEER"
start_server "$VHOST_PEER"
export SERVER_PID=$server
status=0
"$@" || status=$?
stop_server
exit $status
