#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes or checks the golden layout of the ABI: one line per field, slot and constant, with its
offset or value.

  layout.py --check    compares the headers with hal/abi/xhal-0.layout: lines may only be added at
                       the end of their section (a structure, the slots, the constants of an
                       enumeration), and no structure has padding
  layout.py --update   writes the golden file anew, after the same check; --force goes without it (a
                       break in 0.x needs a line in docs/abi-log.md)

A compiler tells the offsets (cc -std=c11), so the file is what a plugin sees, not what this script
thinks.
"""

import argparse
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
HEADERS = [
    "base",
    "status",
    "init",
    "device",
    "context",
    "memory",
    "timeline",
    "event",
    "stream",
    "pool",
    "op",
    "module",
    "graph",
    "telemetry",
    "activity",
    "comm",
    "host",
    "plugin",
]


def without_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def fields(body):
    """Names of the fields of a structure's body, in order; a union counts by its own name."""
    body = re.sub(r"#(?:.*\\\n)*.*", "", body)
    body = re.sub(r"union\s*{[^}]*}", "union", body, flags=re.S)
    names = []
    for statement in body.split(";"):
        statement = statement.strip()
        if not statement:
            continue
        pointer = re.search(r"\(\*(\w+)\)\s*\(", statement)
        if pointer:
            names.append(pointer.group(1))
            continue
        for part in statement.split(","):
            names.append(re.search(r"(\w+)\s*(\[[^\]]*\])?\s*$", part).group(1))
    return names


def program(include):
    """A C program that prints the layout."""
    out = [
        "#include <stddef.h>",
        "#include <stdio.h>",
        "#include <xhal/plugin.h>",
        "int main(void) {",
    ]
    for header in HEADERS:
        text = without_comments((include / "xhal" / f"{header}.h").read_text())
        for match in re.finditer(r"typedef struct (\w+) {(.*?)^} \1;", text, flags=re.S | re.M):
            name, body = match.groups()
            out.append(f'printf("struct {name} size %zu\\n", sizeof({name}));')
            for field in fields(body):
                out.append(
                    f'printf("{name}.{field} offset %zu size %zu\\n", offsetof({name}, {field}), '
                    f"sizeof((({name}*)0)->{field}));"
                )
        for match in re.finditer(r"\benum\s*{(.*?)}", text, flags=re.S):
            for constant in re.findall(r"\b(XHAL_[A-Z0-9_]+)\s*=", match.group(1)):
                out.append(f'printf("constant {constant} %lld\\n", (long long)({constant}));')
    slots = without_comments((include / "xhal" / "slots.inc").read_text())
    for slot, since in re.findall(
        r"^XHAL_SLOT(?:_HOSTED)?\(\w+, \w+, (\w+), (\d+),", slots, flags=re.M
    ):
        out.append(
            f'printf("slot {slot} offset %zu since {since}\\n", offsetof(xhal_dispatch, {slot}));'
        )
    for name, value in re.findall(
        r"X\((\w+), (-?\d+), \"", (include / "xhal/status.h").read_text()
    ):
        out.append(f'printf("constant XHAL_{name} %lld\\n", (long long)XHAL_{name});')
    for name in re.findall(r"X\((\w+), \d+, \w+\)", (include / "xhal/telemetry.h").read_text()):
        out.append(
            f'printf("constant XHAL_TELEMETRY_{name} %lld\\n", (long long)XHAL_TELEMETRY_{name});'
        )
    # An operator's line carries its groups, attributes and scalars: callers count by their order.
    # Defaults are not part of it, nor the dtypes added to a group ("N+f64"): that is an append.
    ops = without_comments((include / "xhal/ops.inc").read_text())
    pattern = r'^XHAL_OP\((\w+), (\d+), (\d+), ("[^"]*"), ("[^"]*"), ("[^"]*"), ("[^"]*")'
    for name, number, version, *lists in re.findall(pattern, ops, flags=re.M):
        names = [re.sub(r"=\S*|\+\w+", "", item.strip('"')) for item in lists]
        out.append(
            f'printf("operator {name} {number} v{version} '
            f'[{names[0]}] [{names[1]}] [{names[2]}] [{names[3]}]\\n");'
        )
    out.append("return 0; }")
    return "\n".join(out)


def layout(include, compiler):
    with tempfile.TemporaryDirectory() as folder:
        source, binary = pathlib.Path(folder, "layout.c"), pathlib.Path(folder, "layout")
        source.write_text(program(include))
        subprocess.run(
            [compiler, "-std=c11", f"-I{include}", str(source), "-o", str(binary)], check=True
        )
        return subprocess.run(
            [str(binary)], check=True, capture_output=True, text=True
        ).stdout.splitlines()


def key(line):
    words = line.split()
    return words[0] if "." in words[0] else " ".join(words[:2])


def differences(golden, now):
    """What breaks the append-only rule: the old lines are compared, a new one is an append."""
    current = {key(line): line for line in now}
    broken = []
    for line in golden:
        name = key(line)
        new = current.get(name)
        if new is None:
            broken.append(f"removed: {line}")
        elif new != line and not grown(line, new):
            broken.append(f"changed: {line}  ->  {new}")
    return broken


def padding(lines):
    """Gaps between fields: their bytes are not defined, so a later field could not use them."""
    found, end = [], {}
    for line in lines:
        words = line.split()
        if words[0] == "struct":
            end[words[1]] = (0, int(words[3]))
        elif "." in words[0]:
            name = words[0].split(".")[0]
            at, size = end[name]
            if int(words[2]) != at:
                found.append(f"padding before {words[0]}: {int(words[2]) - at} bytes")
            end[name] = (int(words[2]) + int(words[4]), size)
        elif words[0] == "slot":  # slots are the rest of the dispatch table
            end["xhal_dispatch"] = (int(words[3]) + 8, end["xhal_dispatch"][1])
    found += [
        f"padding at the end of {name}: {size - at} bytes"
        for name, (at, size) in end.items()
        if at and at != size
    ]
    return found


def grown(old, new):
    """A structure may become larger: its fields are checked one by one."""
    return old.startswith("struct ") and int(new.split()[-1]) > int(old.split()[-1])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--update", action="store_true")
    parser.add_argument("--force", action="store_true")
    parser.add_argument("--include", type=pathlib.Path, default=HERE.parent / "include")
    parser.add_argument("--golden", type=pathlib.Path, default=HERE / "xhal-0.layout")
    parser.add_argument("--cc", default="cc")
    args = parser.parse_args()
    now = layout(args.include, args.cc)
    golden = args.golden.read_text().splitlines() if args.golden.exists() else []
    broken = [] if args.force else differences(golden, now)
    if broken:
        print("The ABI was broken; appending is allowed, this is not:", *broken, sep="\n  ")
        return 1
    gaps = padding(now)
    if gaps:
        print("Structures have padding; give it a reserved field:", *gaps, sep="\n  ")
        return 1
    if args.update:
        args.golden.write_text("\n".join(now) + "\n")
    elif now != golden:
        print(
            f"{len(set(now) - set(golden))} lines are new; record them with: "
            f"{pathlib.Path(__file__).name} --update"
        )
        return 1
    print(f"{len(now)} lines of layout agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
