#!/bin/bash
# peer.sh qsd PROGRAM [ARGUMENT]... - runs a test program with a vhost-user-blk device of 64 MiB and
# 4 queues at VHOST_SOCKET, and its server's pid in SERVER_PID.
#   qsd   qemu-storage-daemon, on a raw file
# Exit status 77: the server is not on this machine.
set -eu

peer=$1
shift
work=$(mktemp -d "${TMPDIR:-/tmp}/tarn-vhost.XXXXXX")
server=

# shellcheck disable=SC2317  # called by the trap
clean_up() {
	if [ -n "$server" ]; then
		kill "$server" 2>/dev/null || true
		wait "$server" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM INT HUP

# Waits for the server's socket.
wait_for_socket() {
	local tries=600
	until [ -S "$VHOST_SOCKET" ]; do
		kill -0 "$server" || { cat "$work/log"; exit 1; }
		tries=$((tries - 1))
		[ $tries -gt 0 ] || { cat "$work/log"; exit 1; }
		sleep 0.05
	done
}

start_qsd() {
	command -v qemu-storage-daemon >/dev/null || {
		echo "SKIP: no qemu-storage-daemon on this machine"
		exit 77
	}
	truncate -s 64M "$work/disk"
	qemu-storage-daemon \
		--blockdev "driver=file,node-name=disk,filename=$work/disk,discard=unmap" \
		--export "type=vhost-user-blk,id=e,node-name=disk,writable=on,num-queues=4,addr.type=unix,addr.path=$VHOST_SOCKET" \
		>"$work/log" 2>&1 &
	server=$!
}

export VHOST_SOCKET=$work/socket VHOST_PEER=$peer
"start_$peer"
export SERVER_PID=$server
wait_for_socket
status=0
"$@" || status=$?
kill -0 "$server" || {
	echo "FAILED: the server has ended"
	cat "$work/log"
	status=1
}
exit $status
