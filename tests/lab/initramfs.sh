# shellcheck shell=bash disable=SC2154  # the variables are those of what sources this
# Sourced by what makes an initramfs: for the lab's machine (run), and for a guest within it (guest-initramfs). They set
#   lab       this folder
#   kernel    the folder that tests/lab/kernel prints
#   root      the folder that becomes the initramfs
#   programs  arrays: what --program and --file asked for
#   files

# A file of this machine.
bring() { # HERE THERE
        mkdir -p "$root/$(dirname "$2")"
        cp -L "$1" "$root/$2"
}

# A program of this machine, with the libraries that it is linked with; and with tarn the engine that it becomes.
bring_program() { # PROGRAM
        local path library engine
        path=$(PATH=$PATH:/sbin:/usr/sbin command -v "$1") || die "no program '$1' to bring"
        bring "$path" "lab/bin/$(basename "$path")"
        # A program without an interpreter is static, and ldd says so by failing.
        { ldd "$path" 2>/dev/null || true; } | grep -o '/[^ ]*' | while read -r library; do
                [ -e "$root/$library" ] || bring "$library" "$library"
        done
        engine=$(dirname "$path")/tarn-engine
        if [ "$(basename "$path")" = tarn ] && [ -e "$engine" ]; then
                bring_program "$engine"
        fi
}

# The tree with what every initramfs has.
make_root() { # INIT
        mkdir -p "$root/lab/bin"
        bring "$(command -v busybox)" bin/busybox
        bring "$lab/$1" init
        bring "$lab/users" etc/passwd
        bring "$lab/groups" etc/group
}

# What was asked for: programs, files and the command.
bring_asked_for() { # COMMAND...
        local program file
        for program in "${programs[@]}"; do
                bring_program "$program"
        done
        for file in "${files[@]}"; do
                bring "${file%%=*}" "${file#*=}"
        done
        printf 'exec%s\n' "$(quote "$@")" >"$root/lab/command"
}

# Modules with what they need; those LOADed are for init's list, the others are there for who asks.
bring_modules() { # LOAD... [-- MODULE...]
        local version module path load=yes
        version=$(cat "$kernel/complete")
        mkdir -p "$root/lab"
        for module in "$@"; do
                if [ "$module" = -- ]; then
                        load=no
                        continue
                fi
                [ $load = no ] || printf '%s\n' "$module" >&3
                modprobe -d "$kernel" -S "$version" --show-depends "$module" |
                        awk '$1 == "insmod" { print $2 }'
        done 3>"$root/lab/modules" | sort -u | while read -r path; do
                bring "$path" "${path#"$kernel"}"
        done
        cp "$kernel/lib/modules/$version"/modules.{order,builtin,builtin.modinfo} \
                "$root/lib/modules/$version/"
        depmod -b "$root" "$version"
}

# Pages of the initramfs are the guest's memory: no compression, it only costs time here.
pack() { # FILE
        (cd "$root" && find . | cpio -o -H newc --quiet -R 0:0) >"$1"
}

# The words of a command as a shell reads them.
quote() { # WORD...
        local word
        for word in "$@"; do
                printf " '%s'" "${word//\'/\'\\\'\'}"
        done
}

need_tools_of_initramfs() { # [TOOL]...
        local tool
        for tool in busybox cpio modprobe depmod "$@"; do
                command -v "$tool" >/dev/null || {
                        printf 'SKIP: no %s on this machine\n' "$tool" >&2
                        exit 77
                }
        done
}
