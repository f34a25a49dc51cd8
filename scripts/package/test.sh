#!/usr/bin/env bash
# test.sh PACKAGES ROOT [chroot]: the packages in the folder PACKAGES are what Debian expects; they
# install into ROOT, the examples build against them and run, and after removal ROOT is as it was.
#
# ROOT is an empty folder of the caller's, or, with `chroot`, a system of its own (clean_root.sh), where
# DKMS builds moat_guard and initramfs-tools takes it along. /proc is mounted there in a namespace that
# ends with its command; nothing else is mounted. An empty one gets a shell for the packages' scripts; the compilers are then this
# system's, and dependencies are not looked at. dpkg's records are ROOT's own in both cases.
set -euo pipefail
export LC_ALL=C
packages=$(realpath "$1") root=$(realpath "$2") way=${3:-private}
source=$(realpath "$(dirname "$0")/../..")
module=moat-guard-dkms
names=(libmoat1 libmoat-dev moat "$module")

say() { printf '%s\n' "$*"; }

die() {
    say "package test: $*" >&2
    exit 1
}

# In the root with `chroot`, else here.
inside() {
    if [ "$way" = chroot ]; then in_root "$@"; else "$@"; fi
}

# shellcheck disable=SC2016 # of the inner shell
in_root() {
    unshare --mount --pid --fork sh -c 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"' "$root" "$@"
}

field() { dpkg-deb --field "$1" "$2"; }

# What lintian would say first.
check_package() {
    local name=$1 deb=$2 folder
    folder=$(mktemp -d)
    dpkg-deb --raw-extract "$deb" "$folder"
    [ -z "$(find "$folder" -mindepth 1 -maxdepth 1 ! -name usr ! -name DEBIAN)" ] ||
        die "$name has files outside of /usr"
    [ -z "$(find "$folder" ! -user root -o -path "$folder/usr/*" -perm /022 ! -type l)" ] ||
        die "$name has files that others than root own or write"
    [ -s "$folder/usr/share/doc/$name/copyright" ] || die "$name has no copyright"
    gzip --test "$folder/usr/share/doc/$name/changelog.gz"
    (cd "$folder" && md5sum --quiet --check DEBIAN/md5sums) || die "$name: md5sums"
    [ "$(find "$folder/usr" -type f | wc -l)" = "$(wc -l <"$folder/DEBIAN/md5sums")" ] ||
        die "$name: files without md5sums"
    if find "$folder/usr/share/man" -type f ! -name '*.gz' 2>/dev/null | grep .; then
        die "$name: manual pages that are not compressed"
    fi
    rm -r "$folder"
}

check_packages() {
    local name
    for name in "${names[@]}"; do
        check_package "$name" "$packages/$name"_*.deb
    done
    [[ $(field "$packages"/libmoat1_*.deb Depends) == *libc6*libstdc++6* ]] ||
        die "libmoat1 depends on no C++ library"
    [ "$(field "$packages"/libmoat-dev_*.deb Depends)" = \
        "libmoat1 (= $(field "$packages"/libmoat1_*.deb Version))" ] ||
        die "libmoat-dev depends on another libmoat1"
    [[ $(field "$packages"/moat_*.deb Depends) == *libc6* ]] || die "moat depends on no libc6"
    [ "$(field "$packages/$module"_*.deb Depends)" = dkms ] || die "$module does not depend on dkms"
    dpkg-deb --contents "$packages/$module"_*.deb | grep "/usr/src/moat-guard-.*/dkms.conf" >/dev/null ||
        die "$module has no source for DKMS"
}

# Every path of the root but dpkg's own records.
paths() { find "$root" -mindepth 1 -path "$root/var" -prune -o -print | sort; }

# Of an empty root: dpkg's records, and what packages' scripts call.
prepare_private() {
    mkdir -p "$root"/var/lib/dpkg/{info,updates} "$root"/{tmp,bin,sbin}
    : >"$root/var/lib/dpkg/status"
    cp /bin/busybox "$root/bin/sh"
    printf '#!/bin/sh\necho called >>/var/ldconfig\n' >"$root/sbin/ldconfig"
    chmod +x "$root/sbin/ldconfig"
}

install_packages() {
    if [ "$way" = chroot ]; then
        mkdir -p "$root/var/packages"
        cp "$packages"/*.deb "$root/var/packages"
        in_root sh -c 'dpkg --install /var/packages/*.deb'
    else
        dpkg_in_root --install "$packages"/*.deb
        [ -s "$root/var/ldconfig" ] || die "the linker's cache is not brought up to date"
    fi
}

dpkg_in_root() {
    if [ "$way" = chroot ]; then
        in_root dpkg "$@"
    else
        dpkg --root="$root" --force-depends "$@"
    fi
}

# The C example by pkg-config, the C++ ones by find_package, both where the root has them.
build_and_run() {
    local work=$root/tmp/moat_examples prefix=$root libraries pkg_config_path said
    mkdir -p "$work"
    cp -r "$source/examples" "$source/tests/install/consumer" "$work"
    [ "$way" = private ] || prefix=''
    libraries=$(dirname "$(find "$root/usr/lib" -name libmoat.so)")
    libraries=$prefix/${libraries#"$root"/}
    pkg_config_path=$libraries/pkgconfig
    work=$prefix/tmp/moat_examples
    inside env PKG_CONFIG_PATH="$pkg_config_path" sh -ec "
        cc -std=c11 -Wall -Wextra -Werror $work/examples/c_driver.c -o $work/c_driver \
            \$(pkg-config --cflags --libs moat-c)
        cmake -G Ninja -S $work/consumer -B $work/build -DCMAKE_PREFIX_PATH=$prefix/usr \
            -DCMAKE_BUILD_TYPE=Release -DMOAT_EXAMPLES=$work/examples
        cmake --build $work/build" >"$root/tmp/moat_build.log" 2>&1 ||
        { cat "$root/tmp/moat_build.log" >&2 && die "the examples do not build"; }
    # shellcheck disable=SC2016 # of the inner shell
    said=$(inside env LD_LIBRARY_PATH="$libraries" sh -c '
        for each in c_driver build/c_driver build/soft_device build/consumer; do
            "$0/$each" 2>/dev/null || echo "$each: $?"
        done' "$work")
    if [ "$(grep -c '"receive ring" was passed by 64 bytes' <<<"$said")" != 2 ] ||
        ! grep -q 'SUMMARY: moat: dma-buffer-overflow' <<<"$said" ||
        ! grep -q '^\[0x1000, +8K)$' <<<"$said"; then
        die "the examples said: $said"
    fi
    rm -r "$root/tmp/moat_examples" "$root/tmp/moat_build.log"
    [ "$(inside "$prefix/usr/bin/moat" --version)" = "moat $(field "$packages"/moat_*.deb Version)" ] ||
        die "the command is of another version"
}

# DKMS built the module for the kernel whose headers are there, and an initramfs holds it where
# modprobe.d has options for it.
check_module() {
    local kernel config options=$root/etc/modprobe.d/moat_guard.conf
    kernel=$(ls "$root/lib/modules")
    config=$root/boot/config-$kernel # of the kernel's package, of which the root has the headers alone
    cp "$root/usr/src/linux-headers-$kernel/.config" "$config"
    [[ $(in_root dkms status -m moat-guard -k "$kernel") == *": installed"* ]] ||
        die "DKMS did not build moat_guard: $(cat "$root"/var/lib/dkms/moat-guard/*/build/make.log)"
    [ "$(in_root modinfo -k "$kernel" -F license moat_guard)" = "Dual MIT/GPL" ] ||
        die "modinfo does not find moat_guard"
    ! initramfs_has_module "$kernel" || die "the initramfs has moat_guard, without options for it"
    mkdir -p "$(dirname "$options")"
    echo 'options moat_guard size=4' >"$options"
    initramfs_has_module "$kernel" || die "the initramfs lacks moat_guard"
    rm "$options" "$config"
}

# Whether it holds the file and the order to load it.
# shellcheck disable=SC2016 # of the inner shell
initramfs_has_module() {
    in_root sh -ec '
        mkinitramfs -o /var/initramfs "$0" 2>/dev/null
        lsinitramfs /var/initramfs | grep "/moat_guard\.ko"
        rm -rf /var/unpacked && unmkinitramfs /var/initramfs /var/unpacked
        grep -x moat_guard $(find /var/unpacked -path "*/conf/modules")' "$1" >/dev/null
}

check_packages
say "the packages are well-formed"
[ "$way" = chroot ] || prepare_private
before=$(paths)
install_packages >"$root/var/install.log" 2>&1 ||
    { cat "$root/var/install.log" >&2 && die "the packages do not install"; }
for name in "${names[@]}"; do
    dpkg_in_root --listfiles "$name" >/dev/null
done
say "installed: $(($(paths | wc -l) - $(wc -l <<<"$before"))) paths"
if [ "$way" = chroot ]; then
    check_module
    say "DKMS builds moat_guard, and an initramfs takes it along"
fi
build_and_run
say "the examples build against it, run, and say what they should"
dpkg_in_root --purge "${names[@]}" >/dev/null 2>&1
diff <(printf '%s\n' "$before") <(paths) || die "removal leaves something"
say "removed: nothing is left"
