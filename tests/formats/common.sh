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

# same_info FILE FORMAT: both say the same of it. A file system may still be placing what was just written, and count
# other blocks a moment later.
same_info() {
    for _ in 1 2 3; do
        ok tarn image info --json --format "$2" "$1"
        printf '%s' "$out" >info.tarn
        ok qemu-img info --output=json -f "$(qemu_name "$2")" "$1"
        printf '%s' "$out" >info.qemu
        ! $python -I -S "$here/info.py" info.tarn info.qemu >info.differs 2>&1 || return 0
    done
    die "info of $1: $(cat info.differs)"
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

# read_theirs RAW FORMAT [QEMU-OPTION...]: what qemu-img writes, tarn reads: content, map, info, check. Leaves theirs.FORMAT.
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
    same_info "$2" "$3"
    check_image "$2" "$3"
}

# read_large FORMAT SIZE OFFSETS [QEMU-OPTION...]: an image of theirs that is written at each offset and around it, and
# nowhere else, has just that for tarn. qemu-img would look at each cluster of it, so it is asked for nothing but the size.
read_large() {
    local format=$1 size=$2 at i=0 writes=()
    for at in $3; do
        i=$((i + 1))
        writes+=(-c "write -P $i $((at < 65536 ? 0 : at - 65536)) 100k" -c "write -P $((i + 100)) $at 512")
    done
    shift 3
    rm -f theirs* want.raw back.raw
    ok qemu-img create -q -f "$(qemu_name "$format")" "$@" "theirs.$format" "$size"
    same_info "theirs.$format" "$format" # the last who was asked is qemu-img
    truncate -s "$(json "['virtual-size']")" want.raw
    ok qemu-io -f "$(qemu_name "$format")" "${writes[@]}" "theirs.$format"
    ok qemu-io -f raw "${writes[@]}" want.raw
    ok tarn image convert "theirs.$format" back.raw
    same "$(stat -c %s back.raw)" "$(stat -c %s want.raw)" "size of theirs.$format"
    same_content want.raw raw back.raw raw
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
