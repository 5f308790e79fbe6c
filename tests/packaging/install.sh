#!/bin/bash
# 'meson install' puts everything where it belongs, and nothing else; what it has installed works from there.
# BUILD, PREFIX, UNITDIR, LIBEXECDIR: of the build.
set -eu
docs=$(cd "$(dirname "$0")/../../docs" && pwd)
. "$(dirname "$0")/../protocol/cli_common.sh"
command -v meson >/dev/null || skip "meson is not on the path"

DESTDIR=$work/root timeout -k 5 120 meson install -C "$BUILD" --no-rebuild >log 2>&1 || die "meson install: $(cat log)"
root=$work/root$PREFIX
# Manual pages are made where there is scdoc.
expected="$PREFIX/bin/tarn
$LIBEXECDIR/tarn/reload
$LIBEXECDIR/tarn/tarn-engine
$PREFIX/share/bash-completion/completions/tarn
$PREFIX/share/doc/tarn/README.md
$PREFIX/share/doc/tarn/control.md
$PREFIX/share/doc/tarn/defects.md
$PREFIX/share/doc/tarn/reliability.md
$UNITDIR/tarn-pools.target
$UNITDIR/tarn-vm@.service
$UNITDIR/tarn-vms.service
$UNITDIR/tarn@.service
$UNITDIR/tarn@.socket"
pages=$(cd "$docs/man" && printf '%s\n' *.scd | sed -E "s|(.*)\.([15])\.scd$|$PREFIX/share/man/man\2/\1.\2|")
command -v scdoc >/dev/null || pages=
recipes=$(cd "$docs/recipes" && printf "$PREFIX/share/doc/tarn/recipes/%s\n" *.md)
have=$(cd root && find . ! -type d -printf '/%P\n' | sort)
same "$have" "$(printf '%s\n' "$expected" "$pages" "$recipes" | sed '/^$/d' | sort)" "what is installed"

bin=$root/bin/tarn
ok "$bin" --version
ok "$bin" pool create tank d0 --file-size 64M
ok "$bin" volume create tank/web 1M
ok "$bin" volume list tank --json
same "$(json "['volumes'][0]['name']")" tank/web
grep -q "^ExecStart=$PREFIX/bin/tarn " "root$UNITDIR/tarn@.service" || die "the unit starts another tarn"
grep -q "^ExecReload=$LIBEXECDIR/tarn/reload " "root$UNITDIR/tarn@.service" && [ -x "root$LIBEXECDIR/tarn/reload" ] ||
    die "the unit cannot be reloaded"
grep -q "($PREFIX/bin/tarn serve " "root$LIBEXECDIR/tarn/reload" || die "a reload starts another tarn"
for page in $pages; do
    grep -q '^\.SH NAME' "root$page" || die "$page is empty"
done
bash -euc '. "$1"; complete -p tarn' bash "$root/share/bash-completion/completions/tarn" >/dev/null ||
    die "the completion cannot be loaded"
echo "install: passed"
