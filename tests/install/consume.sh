#!/usr/bin/env bash
# consume.sh find_package|pkg_config|add_subdirectory BUILD SCRATCH COMPILER FLAGS: see CMakeLists.txt here.
set -euo pipefail
way=$1 build=$2 scratch=$3 compiler=$4 flags=$5
consumer=$(dirname "$(realpath "$0")")/consumer
examples=$consumer/../../../examples

rm -rf "$scratch"
if [ "$way" = add_subdirectory ]; then # without CLI11, GoogleTest, npm, and a network
    launcher=$(command -v ccache) || launcher=
    cmake -S "$consumer" -B "$scratch/build" -G Ninja -DCMAKE_CXX_COMPILER="$compiler" \
        -DCMAKE_CXX_FLAGS="$flags" -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" \
        -DCMAKE_DISABLE_FIND_PACKAGE_CLI11=ON -DCMAKE_DISABLE_FIND_PACKAGE_GTest=ON \
        -DMOAT_SOURCE="$(realpath "$consumer/../../..")"
    if grep -i npm "$scratch/build/CMakeCache.txt"; then exit 1; fi
    if grep -m 1 -e -Werror "$scratch/build/build.ninja"; then exit 1; fi
    cmake --build "$scratch/build" --target moat_platform CMakeFiles/consumer.dir/main.cpp.o
    exit
fi
cmake --install "$build" --prefix "$scratch/prefix" >/dev/null
for file in man/man1/moat.1 man/man1/moat-audit.1 bash-completion/completions/moat; do
    [ -f "$scratch/prefix/share/$file" ] || { echo "not installed: $file" && exit 1; }
done
mkdir -p "$scratch/build"
case $way in
find_package)
    cmake -S "$consumer" -B "$scratch/build" -G Ninja -DCMAKE_PREFIX_PATH="$scratch/prefix" \
        -DCMAKE_CXX_COMPILER="$compiler" -DCMAKE_CXX_FLAGS="$flags"
    cmake --build "$scratch/build"
    ;;
pkg_config)
    PKG_CONFIG_PATH=$(dirname "$(find "$scratch/prefix" -name moat.pc)")
    export PKG_CONFIG_PATH
    # shellcheck disable=SC2046,SC2086 # lists of words
    for program in "$consumer/main" "$examples/soft_device"; do
        "$compiler" $flags "$program.cpp" -o "$scratch/build/$(basename "$program")" \
            $(pkg-config --cflags --libs moat)
    done
    "$scratch/build/soft_device" # links only if moat.pc lists the libraries in link order
    mv "$scratch/build/main" "$scratch/build/consumer"
    ;;
esac
"$scratch/build/consumer"
