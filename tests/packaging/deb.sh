#!/bin/bash
# dpkg-buildpackage makes a package of a clean tree: what it says and holds, that it works from where it is unpacked,
# and that it was told of every library that a build needs.
set -eu
source=$(cd "$(dirname "$0")/../.." && pwd)
. "$source/scripts/lib.sh"
. "$source/tests/protocol/cli_common.sh"
for tool in dpkg-buildpackage dh git; do
    command -v $tool >/dev/null || skip "$tool is not installed"
done

for package in "${packages_build[@]}"; do
    case $package in
    gcc | libc6-dev | ninja-build) continue ;; # build-essential's, and meson's
    esac
    grep -qE "^(Build-Depends:)? +$package( |,|$)" "$source/debian/control" || die "debian/control lacks '$package'"
done
version=$(sed -n "s/^  version: '\(.*\)',/\1/p" "$source/meson.build")
same "$(dpkg-parsechangelog -l "$source/debian/changelog" -S Version)" "$version" "debian/changelog"

mkdir tree
unset CC CFLAGS LDFLAGS DEB_BUILD_OPTIONS DESTDIR
git -C "$source" ls-files -z | (cd "$source" && xargs -0 tar c) | tar x -C tree
(cd tree && DEB_BUILD_OPTIONS="parallel=$(nproc) noautodbgsym" timeout -k 5 1500 dpkg-buildpackage -us -uc -b) \
    >build.log 2>&1 || die "dpkg-buildpackage failed"
deb=$(echo tarn_"$version"_*.deb)
[ -e "$deb" ] || die "there is no package: $(ls)"

for library in libdeflate0 libgnutls30 libisal2 libjansson4 libnbd0 liburing2; do
    dpkg-deb -f "$deb" Depends | grep -q "$library" || die "it does not depend on $library: $(dpkg-deb -f "$deb" Depends)"
done
mkdir control root
dpkg-deb -e "$deb" control
same "$(find control -type f -printf '%f\n' | sort | tr '\n' ' ')" "control md5sums " "what runs when it is installed"
dpkg-deb -x "$deb" root
for file in usr/bin/tarn usr/share/man/man1/tarn{,-image,-pool,-serve,-snapshot,-stat,-volume}.1.gz \
    usr/share/man/man5/tarn-vm-file.5.gz usr/share/bash-completion/completions/tarn usr/share/doc/tarn/copyright; do
    [ -s "root/$file" ] || die "the package lacks $file"
done
units=root$(pkg-config --variable=systemdsystemunitdir systemd 2>/dev/null || echo /lib/systemd/system)
grep -q '^ExecStart=/usr/bin/tarn serve ' "$units/tarn@.service" || die "the service starts something else"
reload=$(sed -n 's/^ExecReload=\([^ ]*\) .*/\1/p' "$units/tarn@.service")
[ -x "root$reload" ] && grep -q '(/usr/bin/tarn serve ' "root$reload" || die "the service cannot be reloaded: '$reload'"
[ -x "root${reload%/*}/tarn-engine" ] || die "the package lacks the engine"
[ -s "$units/tarn-vms.service" ] || die "the package lacks the unit of machines that start with the host"
[ -s "$units/tarn-pools.target" ] || die "the package lacks the target that machines wait for"
[ -s "$units/tarn@.socket" ] || die "the package lacks the socket unit"

# Paths of those who built it are in nobody's way.
! grep -rqF "$work" root || die "the package names the folder that it was built in"
bin=root/usr/bin/tarn
same "$($bin --version)" "tarn $version"
ok $bin pool create tank d0 --file-size 64M
ok $bin volume create tank/web 16M
ok $bin pool check tank

if command -v lintian >/dev/null; then
    found=$(lintian --fail-on none --allow-root "$deb" 2>&1 | grep -E '^[EW]:' || true)
    [ -z "$found" ] || die "lintian: $found"
fi
echo "deb: passed"
