#!/bin/bash
# Completion under bash: what is offered after what was typed, and that it reaches the command line of a terminal.
set -eu
completion=$(cd "$(dirname "$0")/../../docs/completion" && pwd)/tarn
. "$(dirname "$0")/../protocol/cli_common.sh"

# bash gives the command as it is typed.
mkdir bin
ln -s "$(realpath "$TARN")" bin/tarn
export PATH=$work/bin:$PATH

# offers LINE WORD...: after LINE a tab offers these words and no others. What bash has of them already is not in them.
offers() {
    local line=$1 have
    shift
    have=$(timeout -k 5 60 bash --norc -c '
        compopt() { :; }
        . "$1"
        COMP_LINE=$2 COMP_POINT=${#2}
        _tarn tarn
        printf "%s\n" "${COMPREPLY[@]}"' bash "$completion" "$line" | sort | tr '\n' ' ')
    same "${have% }" "$(printf '%s\n' "$@" | sort | tr '\n' ' ' | sed 's/ $//')" "offered after '$line'"
}
nothing() {
    offers "$1" ''
}

ok tarn pool create tank d0 d1 --file-size 64M
ok tarn pool create pond d2 --file-size 64M
for volume in web data; do
    ok tarn volume create tank/$volume 1M
done
ok tarn snapshot create tank/web@monday tank/data@monday
ok tarn snapshot create tank/web@tuesday
touch disk-a disk-b 'lone file'

mkdir -p state/vm/mill/snapshots/{march,may,.june} state/vm/web
touch state/vm/{mill,web}/vm.yaml state/vm/mill/snapshots/{march,may,.june}/vm.yaml

# nouns, verbs, options: those that are built
offers 'tarn po' pool
offers 'tarn --' --help --version
# machines, and their snapshots
offers 'tarn vm show ' mill web
offers 'tarn vm restore mill m' march may
offers 'tarn vm clone mill ma' march may
nothing 'tarn vm snapshot mill m'
offers 'tarn vm delete m' mill
offers 'tarn vm delete mill@mar' @march
offers 'tarn vm export m' mill
nothing 'tarn vm export mill mi'
offers 'tarn vm export mill disk' disk-a disk-b
offers 'tarn image import x tank --vm-file disk' disk-a disk-b
offers 'tarn snapshot ' create delete diff list restore --help
offers 'tarn snapshot d' delete diff
offers 'tarn pool sc'
offers 'tarn pool check tank --' --data --help --json
offers 'tarn pool create --f' --file-size --force
offers 'tarn volume set -' --help
nothing 'tarn frobnicate '
nothing 'tarn frobnicate something -'

# values of options
offers 'tarn pool create tank d0 --layout ' concat stripe
offers 'tarn image import x tank/y --format ' qcow2 raw vdi vhd vhdx vmdk
offers 'tarn serve tank --nbd ' tcp: unix: vsock:
offers 'tarn serve tank --nbd unix:disk' disk-a disk-b
offers "tarn serve tank --group $(id -gn)" "$(id -gn)"
nothing 'tarn pool create tank d0 --file-size '

# what an argument stands for
offers 'tarn serve ' pond tank
offers 'tarn serve pond t' tank
offers 'tarn serve --control /x p' pond
offers 'tarn pool status p' pond
nothing 'tarn pool status pond '
nothing 'tarn pool create '
offers 'tarn pool create new disk' disk-a disk-b
offers 'tarn pool create new disk-a disk-b --force disk' disk-a disk-b
offers 'tarn volume list ' pond tank
offers 'tarn volume create t' tank/
nothing 'tarn volume create tank/new '
offers 'tarn volume show ' pond/ tank/
offers 'tarn volume show tank/' tank/data tank/web
offers 'tarn volume show tank/w' tank/web
nothing 'tarn volume show tank/x'
nothing 'tarn volume show nix/'
offers 'tarn volume clone tank/' tank/data@monday tank/web@monday tank/web@tuesday
offers 'tarn volume clone tank/web@monday t' tank/
offers 'tarn snapshot create tank/w' tank/web@
offers 'tarn snapshot create tank/web@wednesday tank/d' tank/data@
nothing 'tarn snapshot create tank/web@'
offers 'tarn stat po' pond pond/
offers 'tarn serve tank --tls-cert disk' disk-a disk-b
offers 'tarn snapshot list ta' tank tank/
offers 'tarn snapshot list tank/w' tank/web
offers 'tarn snapshot restore tank/web@' @monday @tuesday
offers 'tarn snapshot restore tank/web@t' @tuesday
offers 'tarn snapshot diff tank/web@monday tank/w' tank/web tank/web@monday tank/web@tuesday
offers 'tarn volume attach tank/web --vhost-user disk' disk-a disk-b
nothing 'tarn volume attach tank/web '
offers 'tarn image export tank/d' tank/data tank/data@monday
offers 'tarn image export tank/data disk' disk-a disk-b
offers 'tarn image import disk' disk-a disk-b
nothing 'tarn image export tank/web disk-a '
offers 'tarn volume set tank/web ' bandwidth-burst= bandwidth= compression= discard= iops-burst= iops= \
    on-full=
offers 'tarn volume set tank/web iops=5 on-full=' auto enospc wait

# the same while it is served, and what it finds nothing of is silent
serve_now tank
offers 'tarn volume show tank/' tank/data tank/web
serve_end
said=$(TARN_STATE_DIR=$work/nowhere/at/all bash --norc -c '. "$1"; COMP_LINE="tarn serve " COMP_POINT=11; _tarn tarn' \
    bash "$completion" 2>&1 | grep -v compopt || true)
same "$said" ''

# through readline, whose own idea of a word has to be met
$python -I -S - "$completion" <<'PYTHON'
import os, pty, select, signal, sys, time

def type_line(line, want, then=""):
    pid, fd = pty.fork()
    if pid == 0:
        os.environ.update(TERM="dumb", PS1="$ ", HISTFILE="/dev/null")
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    seen = b""
    def wait_for(text):
        nonlocal seen
        end = time.monotonic() + 60
        while text not in seen:
            if not select.select([fd], [], [], max(0, end - time.monotonic()))[0]:
                sys.exit(f"after {line!r}: no {text!r} in {seen!r}")
            seen += os.read(fd, 4096)
        seen = seen.split(text, 1)[1]
    wait_for(b"$ ")
    os.write(fd, b". " + sys.argv[1].encode() + b"; PS1=ready:\r")
    wait_for(b"\nready:")
    os.write(fd, line.encode() + b"\t" + then.encode())
    wait_for(want.encode())
    os.kill(pid, signal.SIGKILL)
    os.close(fd)
    os.waitpid(pid, 0)

type_line("tarn snapshot restore tank/web@t", "tarn snapshot restore tank/web@tuesday ")
type_line("tarn snapshot create tank/w", "tarn snapshot create tank/web@w", "w")
type_line("tarn volume set tank/web on-full=w", "tarn volume set tank/web on-full=wait ")
type_line("tarn serve pond --nbd unix:lo", "tarn serve pond --nbd unix:lone\\ file ")
PYTHON
echo "completion: passed"
