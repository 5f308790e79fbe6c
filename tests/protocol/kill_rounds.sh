#!/bin/bash
# kill_rounds.sh ROUNDS [SEED] - kill -9 of `tarn serve` and of its clients under load over both protocols, and what must
# be there afterwards is.
#
# Two NBD clients write stamped blocks all over two volumes, one of whole blocks and one of sectors, and flush now and
# then; a guest reads and writes a third over vhost-user; meanwhile snapshots are taken and deleted, and a volume is
# resized. Then something dies: the server at some moment, the server at a place of its code (tarn_marked), the server
# and the next one within its recovery, or the clients, with requests in flight.
#
# The next server must show for each block of the NBD clients a version between the last that a flush covered and the
# last that was sent, whole. The guest goes on, and reads what it was answered. What clients that were killed had been
# answered is there, and others may have their volumes. The snapshots that were answered must be there, the resized
# volume must have its old or its new size, and `pool check` must find nothing.
# TARN, TARN_MARKED, NBDLOAD and VHOSTLOAD name the binaries.
set -eu

rounds=$1
RANDOM=${2:-1}
dir=$(mktemp -d)
server= guest= whole= sectors= operations=
export TARN_STATE_DIR=$dir/state TARN_RUNTIME_DIR=$dir/run

# What dies, in turn: moments are for the server at random; places are marks.c's, and :N says which pass at most.
plan=(moment log-written:40 disk-write:400 clients superblock:1 moment snapshot:4 mapped:400 guest-answered:200 delete:3
	replay-write:4 moment log-write:40 pages-written:1 resize:4 clients replay:1 superblock-written:1 collect:3 moment
	guest-answer:200 replay-superblock:1 disk-flush:20 cut:1 replay-ends:1 clients replayed:1 guest-resumes:1 replay-pages:1
	create:1)

# shellcheck disable=SC2317  # called by the trap
cleanup() {
	local pid
	for pid in $server $guest $whole $sectors $operations; do
		kill -KILL "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	done
	rm -rf "$dir"
}
trap cleanup EXIT
trap 'exit 143' TERM INT HUP

die() {
	echo "FAIL round $round ($what): $*"
	cat "$dir"/serve.log "$dir"/*.err 2>/dev/null || true
	exit 1
}

uri() {
	echo "nbd+unix:///pool/$1?socket=$dir/nbd.sock"
}

begin_server() { # [PLACE:N]
	local tarn=$TARN
	if [ $# -gt 0 ]; then
		tarn=$TARN_MARKED
		export TARN_DIES_AT=$1
	fi
	: >"$dir/serve.log" # what the last server said is not to be taken for this one's word
	"$tarn" serve pool --nbd "unix:$dir/nbd.sock" --vhost-user "$dir/vhost" >"$dir/serve.log" 2>&1 &
	server=$!
	unset TARN_DIES_AT
}

start() { # [PLACE:N]
	begin_server "$@"
	# The sockets of the one that was killed are there still: only its own word says that it serves.
	for _ in $(seq 600); do
		! grep -q '^  control' "$dir/serve.log" || return 0
		if ! kill -0 "$server" 2>/dev/null; then
			# A guest that goes on brings it past its place at once.
			[ $# = 0 ] || return 0
			die "the server does not start again"
		fi
		sleep 0.05
	done
	die "the server does not serve"
}

stop() {
	kill -TERM "$server"
	wait "$server" || die "the server did not end in order: $?"
	server=
}

# The server must die by itself, and by SIGKILL.
await_death() {
	local status=0
	for _ in $(seq 1200); do
		kill -0 "$server" 2>/dev/null || break
		sleep 0.05
	done
	kill -0 "$server" 2>/dev/null && die "the server does not come past its place"
	wait "$server" 2>/dev/null || status=$?
	server=
	[ $status = 137 ] || die "the server ended with status $status before its place"
}

kill_server() {
	kill -KILL "$server"
	wait "$server" 2>/dev/null || true
	server=
}

load() { # VOLUME BLOCK_SIZE
	exec "$NBDLOAD" --uri "$(uri "$1")" --op randwrite --bs "$2" --depth 32 --seconds 600 --flush-every 40 --verify \
		--stamps "$dir/$1.stamps" >"$dir/$1.out" 2>"$dir/$1.err"
}

check() { # VOLUME BLOCK_SIZE SINCE
	"$NBDLOAD" --uri "$(uri "$1")" --op read --bs "$2" --depth 128 --once --verify "$3" \
		--stamps "$dir/$1.stamps" >"$dir/$1.out" 2>"$dir/$1.err" || die "$1: $(cat "$dir/$1.err")"
}

# Goes on with the next server, as a virtual machine does, and checks all that it reads.
begin_guest() {
	"$VHOSTLOAD" --socket "$dir/vhost/guest.sock" --op randrw --read-percent 40 --verify --reconnect --length 8M \
		--depth 16 --stamps "$dir/guest.stamps" --seconds 7200 >"$dir/guest.out" 2>"$dir/guest.err" &
	guest=$!
	# Who has no server at his start gives up: the stamps are there once it is connected.
	for _ in $(seq 600); do
		[ ! -e "$dir/guest.stamps" ] || return 0
		kill -0 $guest 2>/dev/null || break
		sleep 0.05
	done
	die "no guest: $(cat "$dir/guest.err")"
}

# Snapshots come and go, a volume is made, resized and deleted, until the server is killed. Of what was answered there
# are notes: the names of the snapshots that must be there, and the sizes that the volume may have.
operate() {
	local n=0 name size
	while [ ! -e "$dir/ends" ]; do
		name=whole@s$round-$n
		"$TARN" snapshot create "pool/$name" >/dev/null || return 0
		echo "$name" >>"$dir/snapshots"
		while [ "$(wc -l <"$dir/snapshots")" -gt 3 ]; do
			name=$(head -n 1 "$dir/snapshots")
			# From here on nobody knows, until it is answered and gone.
			sed -i 1d "$dir/snapshots"
			"$TARN" snapshot delete "pool/$name" --yes >/dev/null || return 0
		done
		size=$(tail -n 1 "$dir/sizes")
		echo $(((RANDOM % 64 + 1) * 1048576)) >>"$dir/sizes"
		"$TARN" volume resize pool/resized "$(tail -n 1 "$dir/sizes")" --yes >/dev/null || return 0
		sed -i '$!d' "$dir/sizes"
		"$TARN" volume create "pool/made$round-$n" 4M >/dev/null || return 0
		"$TARN" volume delete "pool/made$round-$n" --yes >/dev/null || return 0
		n=$((n + 1))
	done 2>"$dir/operate.err"
}

# Without a server the command works on the pool itself, for ever, and does its recovery.
end_operations() {
	[ -n "$operations" ] || return 0
	: >"$dir/ends"
	wait $operations || true
	operations=
	rm "$dir/ends"
}

check_operations() {
	local name size
	"$TARN" snapshot list pool/whole --json | sed -n 's/.*"snapshot": "\([^"]*\)".*/whole@\1/p' >"$dir/there"
	while read -r name; do
		grep -qx "$name" "$dir/there" || die "the snapshot $name is gone"
	done <"$dir/snapshots"
	# What was in flight may be there, and is in nobody's notes: it goes, as the pool has an end.
	grep -vxFf "$dir/snapshots" "$dir/there" >"$dir/strangers" || true
	while read -r name; do
		"$TARN" snapshot delete "pool/$name" --yes >/dev/null 2>"$dir/stranger.err" || die "$(cat "$dir/stranger.err")"
	done <"$dir/strangers"
	"$TARN" volume list pool --json | sed -n 's/.*"name": "pool\/\(made[^"]*\)".*/\1/p' >"$dir/strangers"
	while read -r name; do
		"$TARN" volume delete "pool/$name" --yes >/dev/null 2>"$dir/stranger.err" || die "$(cat "$dir/stranger.err")"
	done <"$dir/strangers"
	size=$("$TARN" volume list pool --json | grep -A 5 '"name": "pool/resized"' | sed -n 's/.*"size": \([0-9]*\).*/\1/p')
	grep -qx "$size" "$dir/sizes" || die "the resized volume has $size bytes, not one of $(cat "$dir/sizes")"
	echo "$size" >"$dir/sizes"
}

end_loads() {
	end_operations
	wait $whole && die "a client did not notice the end of its server"
	wait $sectors && die "a client did not notice the end of its server"
	whole= sectors=
}

# Something that a recovery will have to do.
fill_log() {
	"$NBDLOAD" --uri "$(uri spare)" --op write --once --length 64K --end-flush >/dev/null 2>"$dir/spare.err" ||
		die "$(cat "$dir/spare.err")"
}

kill_clients() {
	local pid
	for pid in $whole $sectors $guest; do
		kill -KILL "$pid" || die "a client has ended: $(cat "$dir"/*.err)"
		wait "$pid" 2>/dev/null || true
	done
	whole= sectors= guest=
	# The volumes are free for others; what was in flight has come to an end when the server has.
	"$NBDLOAD" --uri "$(uri whole)" --op randread --seconds 0.05 >/dev/null 2>"$dir/free.err" ||
		die "after its client's death nobody gets the volume: $(cat "$dir/free.err")"
	"$VHOSTLOAD" --socket "$dir/vhost/guest.sock" --op randread --seconds 0.05 >/dev/null 2>"$dir/free.err" ||
		die "after its guest's death nobody gets the device: $(cat "$dir/free.err")"
	end_operations
	stop
	start
	check whole 4K --after-client
	check sectors 512 --after-client
	"$VHOSTLOAD" --socket "$dir/vhost/guest.sock" --op read --once --verify --length 8M --stamps "$dir/guest.stamps" \
		--after-client >"$dir/guest.out" 2>"$dir/guest.err" || die "the guest: $(cat "$dir/guest.err")"
	begin_guest
}

what=start round=0
"$TARN" pool create pool "$dir/a.disk" "$dir/b.disk" --file-size 512M >/dev/null
mkdir "$dir/vhost"
"$TARN" volume create pool/whole 48M >/dev/null
for volume in sectors guest spare; do
	"$TARN" volume create "pool/$volume" 8M >/dev/null
done
"$TARN" volume create pool/resized 1M >/dev/null
: >"$dir/snapshots"
echo 1048576 >"$dir/sizes"
# Fewer rounds than there are things to die are spread over them.
stride=$((rounds < ${#plan[@]} ? ${#plan[@]} / rounds : 1))
start
begin_guest
for round in $(seq "$rounds"); do
	what=${plan[(round - 1) * stride % ${#plan[@]}]}
	place=${what%:*}
	[ "$place" = "$what" ] || what=$place:$((RANDOM % ${what#*:} + 1))
	case $place in
	moment | clients | replay* | guest-resumes) ;;
	*)
		stop
		start "$what"
		;;
	esac
	load whole 4K &
	whole=$!
	load sectors 512 &
	sectors=$!
	operate &
	operations=$!
	case $place in
	moment)
		sleep "0.$((RANDOM % 90 + 10))"
		kill_server
		;;
	clients)
		sleep "0.$((RANDOM % 90 + 10))"
		kill_clients
		;;
	replay* | guest-resumes)
		sleep "0.$((RANDOM % 90 + 10))"
		end_operations
		fill_log
		kill_server
		begin_server "$what"
		await_death
		;;
	*) await_death ;;
	esac
	if [ "$place" != clients ]; then
		end_loads
		if [ $((round % 5)) = 0 ]; then
			"$TARN" pool check pool --data >"$dir/check.err" 2>&1 || die "pool check: $(cat "$dir/check.err")"
		fi
		start
		check whole 4K --after-crash
		check sectors 512 --after-crash
	fi
	check_operations
	kill -0 $guest 2>/dev/null || die "the guest has ended: $(cat "$dir/guest.err")"
done
kill -KILL $guest || die "the guest has ended: $(cat "$dir/guest.err")"
wait $guest 2>/dev/null || true
guest=
stop
start
"$VHOSTLOAD" --socket "$dir/vhost/guest.sock" --op read --once --verify --length 8M --stamps "$dir/guest.stamps" \
	--after-client >"$dir/guest.out" 2>"$dir/guest.err" || die "the guest: $(cat "$dir/guest.err")"
stop
"$TARN" pool check pool --data >"$dir/check.err" 2>&1 || die "pool check: $(cat "$dir/check.err")"
echo "$rounds rounds, $(wc -l <"$dir/snapshots") snapshots left"
