# Sourced by the scripts: what they share. Needs bash.
#
#   packages_build, packages_test, packages_demo   names of Debian packages
#   need_packages NAME...                          installs what is missing, or says how and exits 1
#   cache_dir                                      prints the folder for what is worth keeping
#   own_apt ARG...                                 apt for downloads only, as any user

# shellcheck disable=SC2034  # used by who sources this
#
# Everything is named here, also what a usual machine has: a missing name shows only on a bare one.
packages_build=(
        gcc libc6-dev meson ninja-build pkg-config scdoc
        liburing-dev libisal-dev libdeflate-dev libzstd-dev libblkid-dev libfdisk-dev libsmartcols-dev libjansson-dev
        libgnutls28-dev libseccomp-dev libcyaml-dev libyaml-dev libnbd-dev libxml2-dev)
packages_test=(
        clang clang-format clang-tidy cppcheck libclang-rt-14-dev libcmocka-dev
        git python3 libnbd-bin python3-libnbd nbdkit nbd-client fio qemu-utils
        qemu-system-x86 qemu-system-common busybox-static cpio kmod e2fsprogs xfsprogs btrfs-progs dmsetup fdisk
        util-linux mount jq procps
        seabios acpica-tools passt socat gnutls-bin mandoc groff-base systemd debhelper dpkg-dev lintian
        fuse3 libvirt-clients libxml2-utils libarchive-tools)
packages_demo=(
        qemu-system-x86 qemu-system-common seabios busybox-static cpio kmod python3
        mmdebstrap uidmap fakeroot gpg debian-archive-keyring e2fsprogs fdisk util-linux)

die() {
        printf '%s: %s\n' "${0##*/}" "$1" >&2
        [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
        exit 1
}

missing_packages() {
        local installed
        installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "$@" 2>/dev/null |
                sed -n 's/^installed //p' || true)
        printf '%s\n' "$@" | sort -u | grep -vxF "$installed" || true
}

# Installs the packages that are missing: as root, or by a sudo that asks nothing it cannot be
# answered; anybody else is told the one line to run.
need_packages() {
        local missing sudo=() line
        command -v dpkg-query >/dev/null || die "this needs Debian's packages, and dpkg is not here"
        mapfile -t missing < <(missing_packages "$@")
        [ ${#missing[@]} -gt 0 ] || return 0
        line="apt-get install --no-install-recommends ${missing[*]}"
        if [ "$(id -u)" != 0 ]; then
                if ! command -v sudo >/dev/null || { [ ! -t 0 ] && ! sudo -n true 2>/dev/null; }; then
                        printf 'Packages are missing. Run this as root, then start again:\n' >&2
                        printf '    apt-get update && %s\n' "$line" >&2
                        exit 1
                fi
                sudo=(sudo)
        fi
        printf '$ %s\n' "${sudo[*]:+sudo }$line"
        install_packages "${missing[@]}" || {
                # The lists may be old, or not there at all.
                "${sudo[@]}" apt-get update -qq && install_packages "${missing[@]}"
        } || die "cannot install: ${missing[*]}"
}

# In need_packages' scope: uses its $sudo.
install_packages() {
        local log
        log=$(mktemp)
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
                --no-install-recommends "$@" >"$log" 2>&1 && rm -f "$log" && return
        tail -5 "$log" >&2
        rm -f "$log"
        return 1
}

cache_dir() {
        local dir=${XDG_CACHE_HOME:-${HOME:?}/.cache}/tarn
        mkdir -p "$dir"
        printf '%s\n' "$dir"
}

# apt with the machine's sources and settings. Where the machine has no package lists (as in a
# container image) they are fetched into our cache, which needs no privilege.
own_apt() {
        local tool=$1 lists
        shift
        lists=$(cache_dir)/apt
        if compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null; then
                "$tool" "$@"
                return
        fi
        mkdir -p "$lists/lists/partial" "$lists/archives/partial"
        local where=(-o "Dir::State::Lists=$lists/lists" -o "Dir::Cache=$lists"
                -o "Dir::Cache::archives=$lists/archives")
        compgen -G "$lists/lists/*Packages*" >/dev/null || apt-get "${where[@]}" -qq update
        "$tool" "${where[@]}" "$@"
}

# What QEMU emulates for a kernel that is to run guests by KVM. Its SVM has all that KVM needs, but XSETBV: a nested guest's
# kernel that trusts XSAVE panics, so there is none, and nothing that needs it. The others QEMU lacks, and says so at each
# start. Its time stamp counters do agree, which the kernel would not believe of such a processor.
# shellcheck disable=SC2034  # for who sources this
emulated_host_processor=EPYC,+svm,+npt,-xsave,-xsavec,-xsaveopt,-xgetbv1,-avx,-avx2,-f16c,-fma,-rdseed,-sha-ni,-fxsr-opt
emulated_host_processor+=,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save
# shellcheck disable=SC2034
emulated_host_options=tsc=reliable

# An emulated processor's time stamp counter is this machine's. How fast it goes the kernel measures as it starts, and on a
# busy machine came out wrong by a factor of 14; this machine's own kernel knows (500 kHz are a BogoMIPS).
emulated_clock_options() {
        awk '/^bogomips/ { printf "tsc_early_khz=%d\n", 500 * $3; exit }' /proc/cpuinfo
}
