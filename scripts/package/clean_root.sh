#!/usr/bin/env bash
# clean_root.sh ROOT: makes the empty folder ROOT a Debian system of this one's release with compilers,
# DKMS and the headers of a kernel, for test.sh. Its packages are fetched by apt-get once, unpacked and
# noted as installed, and kept as an archive in ${XDG_CACHE_HOME:-~/.cache}/moat/root. None of their
# scripts runs and nothing is mounted; needs root, since it is entered by chroot.
set -euo pipefail
export LC_ALL=C
root=$(realpath "$1")
wanted=(base-files bash coreutils dash debianutils diffutils dpkg findutils grep gzip hostname libc-bin
    mawk perl-base sed tar util-linux g++ gcc cmake ninja-build pkg-config
    dkms kmod initramfs-tools-core linux-headers-amd64
    libdw1 libzydis4.0) # those of moat
release=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
key=$({ printf '%s ' "$release" "$(dpkg --print-architecture)" && cat "$0"; } | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/moat/root
archive=$cache/$release-$key.tar.gz

say() { printf '%s\n' "$*" >&2; }

# fetch FOLDER: what a system with nothing installed would need for `wanted`.
fetch() {
    mkdir -p "$1/archives/partial"
    : >"$1/status"
    apt-get -qq -y -o Dir::State::status="$1/status" -o Dir::Cache::archives="$1/archives" \
        -o APT::Sandbox::User=root -o Acquire::Retries=3 --no-install-recommends \
        --download-only install "${wanted[@]}" </dev/null >"$1/log" 2>&1 ||
        { cat "$1/log" >&2 && return 1; }
}

# unpack DEB SYSTEM: the files, and dpkg's note of them.
unpack() {
    local deb=$1 system=$2 name architecture info=$2/var/lib/dpkg
    name=$(dpkg-deb --field "$deb" Package)
    architecture=$(dpkg-deb --field "$deb" Architecture)
    [ "$(dpkg-deb --field "$deb" Multi-Arch)" != same ] || name+=:$architecture
    dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$system"
    dpkg-deb --fsys-tarfile "$deb" | tar -t | sed 's|^\.||; s|/$||; s|^$|/.|' >"$info/info/$name.list"
    {
        dpkg-deb --field "$deb" | sed 's|^Package: .*|&\nStatus: install ok installed|'
        echo
    } >>"$info/status"
}

# What the packages' own scripts would have done of what is needed here.
configure() {
    local system=$1
    ln -s gcc "$system/usr/bin/cc"
    ln -s g++ "$system/usr/bin/c++"
    ln -s mawk "$system/usr/bin/awk"
    echo 'root:x:0:0:root:/root:/bin/bash' >"$system/etc/passwd"
    echo 'root:x:0:' >"$system/etc/group"
    mknod -m 666 "$system/dev/null" c 1 3 2>/dev/null || : >"$system/dev/null"
    ln -s /proc/self/fd "$system/dev/fd"
    chroot "$system" ldconfig
    chroot "$system" depmod "$(ls "$system/lib/modules")"
}

make_archive() {
    local work system folder deb
    work=$(mktemp -d)
    system=$work/system
    say "fetching the packages of a clean system ..."
    fetch "$work"
    mkdir -p "$system"/usr/{bin,sbin,lib,lib64} "$system"/var/lib/dpkg/{info,updates} "$system/dev"
    for folder in bin sbin lib lib64; do
        ln -s "usr/$folder" "$system/$folder"
    done
    say "unpacking $(find "$work/archives" -name '*.deb' | wc -l) packages ..."
    for deb in "$work"/archives/*.deb; do
        unpack "$deb" "$system"
    done
    configure "$system"
    mkdir -p "$cache"
    say "keeping them in $archive ..."
    tar -C "$system" -c . | gzip -1 >"$work/archive"
    mv "$work/archive" "$archive"
    rm -r "$work"
}

[ "$(id -u)" = 0 ] || { say "A clean root needs root: it is entered by chroot." && exit 2; }
[ -f "$archive" ] || make_archive
tar -x -z -C "$root" -f "$archive"
