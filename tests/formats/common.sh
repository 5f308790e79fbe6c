# Sourced by the scripts of formats: images of random content, and what tarn and qemu-img make of each other's.
#
# qemu-img is another program's idea of the same specifications: where both agree in both directions, on content, maps
# and checks, a misreading would have to be common to both. TARN names the binary.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/../protocol/cli_common.sh"

type qemu-img >/dev/null 2>&1 || skip "there is no qemu-img"

# disk FILE KIND [SEED]: a raw image, the same for the same seed.
#   sparse  40 MiB, a few runs of data of all lengths, some of them written zeroes
#   dense   6 MiB full of data that compresses a little
#   odd     5 MiB and 3 sectors, data at both ends
#   bytes   as odd, and not even whole sectors
#   small   1 sector
#   empty   16 MiB of nothing
#   huge    over 2 TiB, data at both ends and around each power of two from 1 GiB on
disk() {
    $python -I -S "$here/disk.py" "$1" "$2" "${3:-1}"
}
disk_kinds=(sparse dense odd bytes small empty huge)

# The name that qemu-img has for a format.
qemu_name() {
    case $1 in
    vhd) echo vpc ;;
    *) echo "$1" ;;
    esac
}

# same_content FILE FORMAT FILE FORMAT: for qemu-img, which takes zeroes after the shorter one's end as equal.
same_content() {
    ok qemu-img compare -f "$(qemu_name "$2")" -F "$(qemu_name "$4")" "$1" "$3"
}

# same_map FILE FORMAT: both say the same of every byte.
same_map() {
    ok tarn image map --json --format "$2" "$1"
    printf '%s' "$out" >map.tarn
    ok qemu-img map --output=json -f "$(qemu_name "$2")" "$1"
    printf '%s' "$out" >map.qemu
    ok $python -I -S "$here/maps.py" map.tarn map.qemu
}

# check FILE FORMAT: nothing is wrong with it, for either.
check_image() {
    local got=0
    tarn image check --format "$2" "$1" >out 2>err || got=$?
    [ "$got" = 0 ] || { [ "$got" = 3 ] && grep -q 'cannot be checked' err; } || die "check of $1: $(cat out err)"
    got=0
    qemu-img check -f "$(qemu_name "$2")" "$1" >out 2>&1 || got=$?
    # 63: this format has none
    [ "$got" = 0 ] || [ "$got" = 63 ] || die "qemu-img check of $1 ($got): $(cat out)"
}

# read_theirs RAW FORMAT [QEMU-OPTION...]: what qemu-img writes, tarn reads: content, map, check. Leaves theirs.FORMAT.
read_theirs() {
    local raw=$1 format=$2 file=theirs.$2
    shift 2
    rm -f "$file" back.raw
    ok qemu-img convert -f raw -O "$(qemu_name "$format")" "$@" "$raw" "$file"
    read_back "$raw" "$file" "$format"
}

# read_back RAW FILE FORMAT: FILE has what RAW has, for tarn, which recognises its format.
read_back() {
    rm -f back.raw
    if [ "$3" != raw ]; then
        ok tarn image info --json "$2"
        same "$(json "['format']")" "$3" "format of $2"
    fi
    ok tarn image convert "$2" back.raw --from-format "$3"
    same_content "$1" raw back.raw raw
    same_map "$2" "$3"
    check_image "$2" "$3"
}

# write_ours RAW FORMAT [TARN-OPTION...]: what tarn writes, qemu-img and tarn read. Leaves ours.FORMAT.
write_ours() {
    local raw=$1 format=$2 file=ours.$2
    shift 2
    rm -f "$file"
    ok tarn image convert --from-format raw "$raw" "$file" --format "$format" "$@"
    same_content "$raw" raw "$file" "$format"
    read_back "$raw" "$file" "$format"
}
