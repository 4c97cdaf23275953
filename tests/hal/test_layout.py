#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The layout check tells an append from a break: each edit of a copy of the headers must be judged
rightly."""

import pathlib
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "hal/abi/layout.py"

# name, file, text, replacement, word that the verdict must contain
EDITS = [
    (
        "a reordered field",
        "memory.h",
        "  uint32_t kind;\n  uint32_t flags;           /* properties",
        "  uint32_t flags;\n  uint32_t kind;           /* properties",
        "changed: xhal_memory_info",
    ),
    (
        "a removed slot",
        "slots.inc",
        "XHAL_SLOT(device, activity_flush, activity_flush, 1, "
        "(xhal_device* device), (device), NONE, 0)",
        "",
        "removed: slot activity_flush",
    ),
    (
        "a changed constant",
        "memory.h",
        "XHAL_MEMORY_SHARED = 3",
        "XHAL_MEMORY_SHARED = 4",
        "changed: constant XHAL_MEMORY_SHARED",
    ),
    (
        "a changed operator",
        "ops.inc",
        'XHAL_OP(axpby, 3, 1, "x:N+f64 y:N+f64?"',
        'XHAL_OP(axpby, 3, 1, "y:N+f64? x:N+f64"',
        "changed: operator axpby",
    ),
    (
        "padding",
        "stream.h",
        "  uint64_t pending;",
        "  uint64_t pending; uint32_t hole;",
        "padding at the end of xhal_stream_properties",
    ),
    (
        "a field put in the middle",
        "stream.h",
        "  int32_t priority; /*",
        "  uint64_t fresh;\n  int32_t priority; /*",
        "changed: xhal_stream_info.priority",
    ),
]
APPENDS = [
    (
        "an appended field",
        "pool.h",
        "  uint64_t limit_bytes; /* most it may hold in slabs; 0 = no limit */\n",
        "  uint64_t limit_bytes; /* most it may hold in slabs; 0 = no limit */\n"
        "  uint64_t fresh;\n",
    ),
    (
        "an appended constant",
        "memory.h",
        "XHAL_PROTECT_READ_WRITE = 3",
        "XHAL_PROTECT_READ_WRITE = 3, XHAL_PROTECT_FRESH = 7",
    ),
]


def check(edits, include):
    for file, old, new in edits:
        path = include / "xhal" / file
        text = path.read_text()
        if old not in text:
            sys.exit(f"the test is out of date: {file} does not contain {old!r}")
        path.write_text(text.replace(old, new, 1))
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--check", "--include", str(include)],
        capture_output=True,
        text=True,
    )


def main():
    failures = 0
    for name, file, old, new, *word in EDITS + APPENDS:
        with tempfile.TemporaryDirectory() as folder:
            include = pathlib.Path(folder, "include")
            shutil.copytree(ROOT / "hal/include", include)
            result = check([(file, old, new)], include)
        expected = word[0] if word else "record them with"
        good = (
            result.returncode == 1
            and expected in result.stdout
            and (not word) == ("record them with" in result.stdout)
        )
        print(("ok    " if good else "FAILED"), name)
        if not good:
            print(result.stdout, result.stderr)
            failures += 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
