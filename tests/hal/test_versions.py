#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Programs, libraries and plugins of every minor together: each combination runs, and what one side
is too old for is answered, not crashed on. Today's build and the binaries in hal/abi/frozen.

  test_versions.py PROGRAM LIBRARY PLUGIN   paths of today's build
"""
import itertools
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

FROZEN = pathlib.Path(__file__).resolve().parents[2] / "hal/abi/frozen"


def newest_minor():
    header = FROZEN.parents[1] / "include/xhal/base.h"
    for line in header.read_text().splitlines():
        if line.startswith("#define XHAL_VERSION_MINOR"):
            return int(line.split()[-1].rstrip("u"))
    raise RuntimeError("base.h names no minor")


def expected(program, library, plugin):
    """The lines the program must print, given the minors of the three."""
    negotiated = min(library, plugin)
    lines = {
        "headers": f"0.{program}",
        "library": f"0.{library}",
        "plugin": f"speaks up to 0.{plugin}, negotiated 0.{negotiated}",
        "compute": "OK",
        "wait": "XHAL_OK",
        "activity": "XHAL_ERR_UNSUPPORTED",
    }
    if program >= 2:  # the template has no stream_query at any minor
        lines["query"] = "XHAL_ERR_UNSUPPORTED"
        lines["name"] = "XHAL_OK" if library >= 2 else "XHAL_ERR_UNKNOWN_FIELD"
    if program >= 3:  # what the ABI log of 0.3 calls a break answers otherwise, by name
        lines["ring"] = "XHAL_OK" if library >= 3 else "XHAL_ERR_UNKNOWN_FIELD"
        lines["scrub"] = "XHAL_ERR_UNSUPPORTED" if library >= 3 else "XHAL_OK"
        lines["flags"] = "XHAL_ERR_UNKNOWN_FIELD" if library >= 3 else "XHAL_OK"
        lines["chain"] = "XHAL_ERR_UNKNOWN_STRUCT"
        lines["id"] = "there" if library >= 3 else "none"
        lines["abort"] = "XHAL_ERR_UNSUPPORTED"
    return lines


def run(program, library, plugin_folder, plugin):
    environment = {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(library.parent),
                   "XHAL_PLUGIN_PATH": str(plugin_folder), "XHAL_VISIBLE_DEVICES": plugin}
    result = subprocess.run([str(program), plugin], env=environment, capture_output=True,
                            text=True, timeout=240)
    answers = dict(line.split(": ", 1) for line in result.stdout.splitlines() if ": " in line)
    return result, answers


def main():
    today = newest_minor()
    program, library, plugin = (pathlib.Path(a).resolve() for a in sys.argv[1:4])
    sides = {today: (program, library, plugin.parent)}
    for folder in sorted(FROZEN.glob("0.*")):
        sides[int(folder.name[2:])] = (folder / "program", folder / "libxhal.so.0", folder)
    if len(sides) < 2:
        sys.exit("no frozen binaries: there is nothing to compare with")

    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        for p, l, g in itertools.product(sides, repeat=3):
            # A build's library has a longer file name; the loader asks for this one.
            folder = pathlib.Path(scratch, f"library-{l}")
            folder.mkdir(exist_ok=True)
            shutil.copy2(sides[l][1], folder / "libxhal.so.0")
            result, answers = run(sides[p][0], folder / "libxhal.so.0", sides[g][2], "template")
            wanted = expected(p, l, g)
            good = result.returncode == 0 and answers == wanted
            print("ok    " if good else "FAILED",
                  f"program 0.{p}, library 0.{l}, plugin 0.{g}: {answers.get('plugin', '-')}")
            if not good:
                failures += 1
                print(f"  wanted {wanted}\n  status {result.returncode}\n{result.stdout}"
                      f"{result.stderr}")
        # A plugin that has the newer slot answers it, and an older library never reaches it.
        if today >= 2:
            for l in sides:
                result, answers = run(program, pathlib.Path(scratch, f"library-{l}/libxhal.so.0"),
                                      plugin.parent, "cpu")
                wanted = "OK" if l >= 2 else "XHAL_ERR_UNSUPPORTED"
                good = result.returncode == 0 and answers.get("query") == wanted
                print("ok    " if good else "FAILED",
                      f"program 0.{today}, library 0.{l}, cpu plugin: query {answers.get('query')}")
                if not good:
                    failures += 1
                    print(result.stdout, result.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
