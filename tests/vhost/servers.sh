# Sourced: servers of a vhost-user-blk device of 64 MiB and 4 queues at $VHOST_SOCKET, in a folder of their own.
#
#   make_disk PEER     what the server serves
#   start_server PEER  starts it and waits for its socket; $server is its pid
#   kill_server        as a crash does
#   stop_server        politely; its exit status must be 0
#
# PEER is qsd (qemu-storage-daemon on a raw file) or tarn (a pool in a sparse file; TARN names the binary).
# Exit status 77: that server is not on this machine.

work=$(mktemp -d "${TMPDIR:-/tmp}/tarn-vhost.XXXXXX")
export VHOST_SOCKET=$work/sockets/vol.sock TARN_STATE_DIR=$work/state TARN_RUNTIME_DIR=$work/run
mkdir "$work/sockets"
server=

# shellcheck disable=SC2317  # called by the trap
clean_up() {
	[ -z "$server" ] || kill -9 "$server" 2>/dev/null || true
	[ -z "$server" ] || wait "$server" 2>/dev/null || true
	rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 143' TERM INT HUP

fail() {
	echo "FAILED: $1"
	[ ! -e "$work/log" ] || tail -20 "$work/log"
	exit 1
}

make_disk() {
	case $1 in
	qsd)
		command -v qemu-storage-daemon >/dev/null || {
			echo "SKIP: no qemu-storage-daemon on this machine"
			exit 77
		}
		truncate -s 64M "$work/disk"
		;;
	tarn)
		"$TARN" pool create pool "$work/disk" --file-size 512M >"$work/log" || fail "no pool"
		"$TARN" volume create pool/vol 64M >"$work/log" || fail "no volume"
		;;
	esac
}

start_server() {
	local tries=1200
	rm -f "$VHOST_SOCKET"
	case $1 in
	qsd)
		qemu-storage-daemon \
			--blockdev "driver=file,node-name=disk,filename=$work/disk,discard=unmap" \
			--export "type=vhost-user-blk,id=e,node-name=disk,writable=on,num-queues=4,addr.type=unix,addr.path=$VHOST_SOCKET" \
			>>"$work/log" 2>&1 &
		;;
	tarn) "$TARN" serve pool --vhost-user "$work/sockets" >>"$work/log" 2>&1 & ;;
	esac
	server=$!
	until [ -S "$VHOST_SOCKET" ]; do
		kill -0 "$server" 2>/dev/null || fail "the server ended at its start"
		tries=$((tries - 1))
		[ $tries -gt 0 ] || fail "the server does not serve"
		sleep 0.05
	done
}

kill_server() {
	kill -9 "$server"
	wait "$server" 2>/dev/null || true
	server=
}

stop_server() {
	local status=0
	kill "$server" 2>/dev/null || fail "the server has ended"
	wait "$server" || status=$?
	server=
	[ $status = 0 ] || fail "the server's exit status is $status"
}
