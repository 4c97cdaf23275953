#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# freeze.sh: keeps this minor version as binaries, for the tests of versions: libxhal, the template
# plugin and a small program (tests/hal/versions/program.cpp). Run it before raising
# XHAL_VERSION_MINOR, from a commit that passes all tests, and commit what it writes.
#
# They carry their own C++ runtime, so that any system with hwloc runs them, and no debug
# information.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
minor=$(sed -n 's/^#define XHAL_VERSION_MINOR \([0-9]*\)u$/\1/p' "$root/hal/include/xhal/base.h")
to=$root/hal/abi/frozen/0.$minor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

alone="-static-libstdc++ -static-libgcc -Wl,--gc-sections -s"
cmake -S "$root" -B "$work" -G Ninja -DCMAKE_BUILD_TYPE=MinSizeRel -DXHAL_TORCH_PYTHON= \
  -DCMAKE_CXX_FLAGS="-ffunction-sections -fdata-sections" \
  -DCMAKE_SHARED_LINKER_FLAGS="$alone" -DCMAKE_MODULE_LINKER_FLAGS="$alone" \
  -DCMAKE_EXE_LINKER_FLAGS="$alone" >/dev/null
cmake --build "$work" --target xhal xhal_template version_program
mkdir -p "$to"
cp -L "$work/lib/libxhal.so.0" "$to/"
cp "$work/lib/xhal/plugins/libxhal_template.so" "$root/plugins/template/template.json" "$to/"
cp "$work/bin/version_program" "$to/program"
cat >"$to/ORIGIN" <<EOF
commit $(git -C "$root" rev-parse HEAD)
made by hal/abi/freeze.sh with $(c++ --version | head -n1)
EOF
ls -l "$to"
