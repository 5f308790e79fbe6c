#!/bin/bash
# tarn stat: what it counts is what clients did; reports, sections, and what it says without a server.
set -eu
. "$(dirname "$0")/cli_common.sh"
$python -c 'import nbd' 2>/dev/null || skip "no Python module of libnbd"

fails 1 "no pool is being served" tarn stat
ok tarn pool create tank d0 d1 --file-size 128M
ok tarn volume create tank/web 64M
ok tarn volume create tank/db 64M
fails 1 "'tank' is not being served" tarn stat tank
grep -q "^hint: 'tarn serve tank'" err || die "no hint: $(cat err)"
fails 1 "no pool is being served" tarn stat

serve_now tank
cat >client.py <<'PY'
import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
print("connected", flush=True)
for line in sys.stdin:
    for i in range(100):
        h.pwrite(bytes(4096), 4096 * i)
    for i in range(50):
        h.pread(8192, 8192 * i)
    for i in range(7):
        h.flush()
    h.trim(4096, 0)
    h.zero(4096, 4096)
    print("done", flush=True)
h.shutdown()
PY
mkfifo to from
$python client.py "nbd+unix:///tank/web?socket=$work/run/tank.nbd" <to >from 2>client.err &
client=$!
server_pids+=("$client")
exec 3>to 4<from
answer() {
    local word
    read -r -t 60 word <&4 || die "the client does not answer: $(cat client.err)"
    same "$word" "$1"
}
work_on() {
    echo go >&3
    answer done
}
answer connected

# counted PATH SECONDS-KEY...: a rate times the seconds, as a whole number
counted() {
    printf '%s' "$out" | $python -I -S -c '
import json, sys
d = json.load(sys.stdin)
item = [v for v in d[sys.argv[1]] if sys.argv[2] in v.get("name", v.get("path"))][0]
print(" ".join(str(round(item[k] * d["seconds"])) for k in sys.argv[3:]))' "$@"
}
work_on
ok tarn stat --json tank
same "$(wc -l <<<"$out")" 1 "one object on one line"
same "$(counted volumes tank/web reads writes flushes discards errors)" "50 100 7 2 0"
same "$(counted exports tank/web reads writes flushes discards errors)" "50 100 7 2 0"
same "$(json "['exports'][0]['user']")" "nbd unix pid $client"
same "$(json "['volumes'][0]['name']")" tank/web
same "$(printf '%s' "$out" | $python -I -S -c '
import json, sys
d = json.load(sys.stdin)
v = d["volumes"][0]
print(0 < v["read_ms"], 0 < v["write_ms"] <= 1000 * d["seconds"], v["p99_ms"] > 0, 0 < v["busy"] <= 1, 0 < v["depth"] <= 1,
      abs(v["write_bytes"] / v["writes"] - 4096) < 20, abs(v["read_bytes"] / v["reads"] - 8192) < 20,
      len(d["members"]), sum(m["writes"] for m in d["members"]) > v["writes"])')" \
    "True True True True True True True 2 True"
same "$(json "len(d['volumes'])" 2>/dev/null || json "['volumes'].__len__()")" 1 "volumes that were opened"

# the shapes are a contract (docs/control.md)
keys() {
    printf '%s' "$out" | $python -I -S -c 'import json, sys; print(*sorted(eval("d" + sys.argv[1], {"d": json.load(sys.stdin)})))' "$1"
}
rates="busy depth discards errors flushes"
same "$(keys "")" "exports members pools seconds volumes"
same "$(keys "['pools'][0]")" "cache name"
same "$(keys "['pools'][0]['cache']")" "dirty hits max misses size"
same "$(keys "['volumes'][0]")" "$rates name p99_ms read_bytes read_ms reads waiting write_bytes write_ms writes"
same "$(keys "['exports'][0]")" "$rates name p99_ms read_bytes read_ms reads user write_bytes write_ms writes"
same "$(keys "['members'][0]")" "$rates p99_ms path read_bytes read_ms reads write_bytes write_ms writes"
counters() { # the server's own
    out=$(echo '{"command":"stats","pool":"tank","volume":"web"}' | timeout 20 $python -I -S -c '
import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect("run/tank.control")
s.sendall(sys.stdin.buffer.read())
print(s.makefile().readline())')
}
counters
same "$(keys "")" "cache checkpoints exports members name ok opened_ns time_ns volumes"
same "$(json "['name']")" tank
same "$(keys "['cache']")" "dirty hits max misses size"
same "$(keys "['volumes'][0]")" "busy_ns depth depth_ns discard flush name open read throttle waiting_for_space write zero"
same "$(keys "['volumes'][0]['write']")" "bytes errors histogram latency_ns requests"
same "$(keys "['volumes'][0]['throttle']")" "bandwidth bandwidth_burst iops iops_burst requests waited_ns waiting"
same "$(keys "['exports'][0]")" "busy_ns depth depth_ns discard flush name read readonly user write zero"
same "$(keys "['members'][0]")" "busy_ns depth depth_ns discard flush path read uuid write"
same "$(json "['volumes'][0]['write']['requests']")" 100
same "$(printf '%s' "$out" | $python -I -S -c '
import json, sys
print(sum(n for end, n in json.load(sys.stdin)["volumes"][0]["write"]["histogram"]))')" 100 "sum of the histogram"

# what a pool found in its cache, and what it had to read: as the server counts it; rates are rounded
within() { # LEAST IS MOST
    [ "$2" -ge $(($1 - 2)) ] && [ "$2" -le $(($3 + 2)) ] || die "'$2' is not from '$1' to '$3'"
}
cache_counter() {
    counters
    json "['cache']['$1']"
}
cached() { # KEY: of a report, as counted uses it
    printf '%s' "$out" | $python -I -S -c '
import json, sys
d = json.load(sys.stdin)
print(round(d["pools"][0]["cache"][sys.argv[1]] * d["seconds"]))' "$1"
}
for key in hits misses; do
    before=$(cache_counter $key)
    ok tarn stat --json tank
    within "$before" "$(cached $key)" "$(cache_counter $key)"
done
[ "$(cache_counter hits)" -gt 10 ] || die "hundreds of requests found nothing in the cache"
ok tarn stat --json tank
same "$(json "['pools'][0]['name']")" tank
same "$(printf '%s' "$out" | $python -I -S -c '
import json, sys
c = json.load(sys.stdin)["pools"][0]["cache"]
print(0 <= c["dirty"] <= c["size"] <= c["max"], c["size"] > 0)')" "True True" "the cache's sizes"

# the first report is since the pool was opened, the next since the one before
mkfifo reports
before=$(cache_counter hits)
"$TARN" stat --json --interval 0.5 --count 3 tank/web >reports 2>stat.err &
stat=$!
server_pids+=("$stat")
exec 5<reports
read -r -t 60 out <&5 || die "no first report"
same "$(counted volumes tank/web writes)" 100
work_on
read -r -t 60 out <&5 || die "no second report"
read -r -t 60 more <&5 || die "no third report"
first=$(counted volumes tank/web writes) hits=$(cached hits)
out=$more
same $((first + $(counted volumes tank/web writes))) 100 "writes of the later two reports"
hits=$((hits + $(cached hits)))
within 10 $hits $(($(cache_counter hits) - before))
wait $stat || die "stat failed: $(cat stat.err)"
exec 5<&-

# as a table
ok tarn stat
grep -Eq '^volume +r/s +w/s +rMB/s +wMB/s +f/s +d/s +r_await +w_await +p99 +aqu-sz +%util' <<<"$out" || die "heading: $out"
grep -Eq '^tank/web +[0-9]+\.[0-9]+ ' <<<"$out" || die "no line of the volume: $out"
grep -Eq '^pool +hit/s +miss/s +%hit +cacheMB +dirtyMB +maxMB' <<<"$out" || die "no heading of the cache: $out"
grep -Eq '^tank( +[0-9]+\.[0-9]+){6}$' <<<"$out" || die "no line of the pool's cache: $out"
! grep -Eq '^(member|export) ' <<<"$out" || die "sections that were not asked for: $out"
ok tarn stat tank --exports --members --count 2
same "$(grep -c '^volume ' <<<"$out")" 2
grep -q '^export ' <<<"$out" && grep -q "^tank/web nbd unix pid $client " <<<"$out" || die "exports: $out"
grep -q '^member ' <<<"$out" && grep -q '/d1 ' <<<"$out" || die "members: $out"
ok tarn stat --json tank/db
same "$out" "$(grep '"volumes":\[\],"exports":\[\]' <<<"$out")" "a volume that nobody opened"
ok tarn stat --json d0
same "$(json "['volumes'][0]['name']")" tank/web
same "$(json "['pools'][0]['name']")" tank "the name of a pool that a member stands for"

# limits and who waits for them
ok tarn volume set tank/web iops=1000
ok tarn stat --json tank/web
same "$(json "['volumes'][0]['waiting']")" 0

fails 1 "no volume.*nix|'nix'" tarn stat tank/nix
fails 1 "no interval" tarn stat tank --interval x
fails 1 "no interval" tarn stat tank --interval 0
fails 1 "no number" tarn stat tank --count 0
fails 2 . tarn stat tank tank

# a server that ends ends it, in a sentence
timeout -k 5 60 "$TARN" stat --interval 0.2 tank >table.log 2>stat.err &
stat=$!
server_pids+=("$stat")
for _ in $(seq 200); do
    ! grep -q '^tank/web' table.log || break
    sleep 0.05
done
exec 3>&-
serve_end
! wait $stat || die "stat goes on without a server"
grep -Eq "^tarn: (pool 'tank' is not being served|the server ended)" stat.err || die "not told: $(cat stat.err)"

# a new server's cache is empty: what it needs first it reads; each pool has a cache of its own
ok tarn pool create other e0 --file-size 64M
serve_now tank other
timeout 60 $python -c 'import nbd, sys
h = nbd.NBD()
h.connect_uri(sys.argv[1])
h.pread(8192, 0)' "nbd+unix:///tank/web?socket=$work/run/tank.nbd"
before=$(cache_counter misses)
[ "$before" -gt 0 ] || die "nothing was read into an empty cache"
ok tarn stat --json tank
within "$before" "$(cached misses)" "$(cache_counter misses)"
ok tarn stat --json
same "$(json "['pools'].__len__()")" 2 "pools"
ok tarn stat --interval 0.2 --count 3
same "$(grep -c '^tank  *[0-9]' <<<"$out") $(grep -c '^other  *[0-9]' <<<"$out")" "3 3" "lines of the pools' caches"
grep -Eq '^other +0\.00 +0\.00 +- ' <<<"$out" || die "a share of nothing: $out"
serve_end
echo "stat: passed"
