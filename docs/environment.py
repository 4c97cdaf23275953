# SPDX-License-Identifier: Apache-2.0
"""Keeps docs/environment.md, the page of all environment variables, true.

  python3 docs/environment.py           writes docs/environment.md from docs/environment.tsv
  python3 docs/environment.py --check   changes nothing; exit status 1 and one line for each
                                        difference between the table, the page and what the
                                        sources really read

A source reads a variable where it names it as a whole quoted string ("XHAL_LOG") that is not also
a name of the public headers, unless it sets it there (setenv, a key with its value); or, in a shell
script, as $XHAL_LOG. Tests and CMake lists are not searched: the one sets variables, the other's
XHAL_ names are cache variables.
"""

import argparse
import pathlib
import re
import sys

# Who reads, as a person says it, and where that code lives. The longest matching path counts.
READERS = {
    "libxhal": "hal/",
    "cpu plugin": "plugins/cpu/",
    "npu plugin": "plugins/npu/",
    "gpu plugin": "plugins/gpu/",
    "template plugin": "plugins/template/",
    "libxcoll": "collectives/",
    "libxtee": "tee/",
    "PyTorch device": "frameworks/torch/",
    "tools": "tools/",
    "examples": "examples/",
    "benchmarks": "bench/",
    "./dev": "dev",
    "CI": ".ci/",
}
SECTIONS = {"XHAL_": "xHAL", "XCOLL_": "Collectives", "XTEE_": "Secure domains"}
SOURCES = (".c", ".h", ".cpp", ".hpp", ".inc", ".py", ".sh", ".in")
NAME = r"(?:XHAL|XCOLL|XTEE)_[A-Z][A-Z0-9_]*"
SETS = r"\s*(?::|\]\s*=[^=])"
QUOTED = re.compile(rf"""(?<!setenv\()(["'])({NAME})\1(?!{SETS})""")
SHELL = re.compile(rf"\$\{{?({NAME})\b")
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.S)

HEADER = """# Environment variables

<!-- Written by docs/environment.py from docs/environment.tsv: edit the table, run that script. -->

Every variable that xHAL reads, and which part of it does. A test keeps this page and the sources
equal.
"""


def read_table(root):
    rows = []
    for number, line in enumerate((root / "docs/environment.tsv").read_text().splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        cells = line.split("\t")
        if len(cells) != 4 or not all(cell.strip() for cell in cells):
            sys.exit(f"docs/environment.tsv:{number}: want 4 cells between tabs: "
                     "variable, default, readers, meaning")
        rows.append([cell.strip() for cell in cells])
    return rows


def render(rows):
    page = [HEADER]
    for prefix, title in SECTIONS.items():
        mine = [row for row in sorted(rows) if row[0].startswith(prefix)]
        if not mine:
            continue
        page.append(f"## {title}\n")
        page.append("| variable | default | read by | meaning |\n|---|---|---|---|")
        page.extend("| `{}` | {} | {} | {} |".format(*(cell.replace("|", "\\|") for cell in row))
                    for row in mine)
        page.append("")
    return "\n".join(page)


def reader_of(path):
    matches = [(len(prefix), name) for name, prefix in READERS.items() if path.startswith(prefix)]
    return max(matches)[1] if matches else None


def source_files(root):
    for prefix in READERS.values():
        start = root / prefix
        for path in [start] if start.is_file() else sorted(start.rglob("*")):
            if path.is_file() and (path.suffix in SOURCES or prefix in ("dev", ".ci/")):
                yield path.relative_to(root).as_posix(), path.read_text(errors="replace")


def without_comments(path, text):
    """The text of a C or C++ file, whose contracts quote names that nothing reads; lines stay."""
    if path.endswith((".c", ".h", ".cpp", ".hpp", ".inc")):
        return COMMENT.sub(lambda match: "\n" * match.group().count("\n"), text)
    return text


def variables_read(root):
    """{variable: {reader: first place}}"""
    files = [(path, without_comments(path, text)) for path, text in source_files(root)]
    header_names = set()
    for path, text in files:
        if "/include/" in path:
            header_names.update(re.findall(rf"\b{NAME}\b", text))
    found = {}
    for path, text in files:
        is_shell = path == "dev" or path.startswith(".ci/") or path.endswith(".sh")
        pattern, group = (SHELL, 1) if is_shell else (QUOTED, 2)
        for match in pattern.finditer(text):
            variable = match.group(group)
            if variable not in header_names:
                place = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
                found.setdefault(variable, {}).setdefault(reader_of(path), place)
    return found


def differences(root):
    rows = read_table(root)
    documented = {row[0]: [reader.strip() for reader in row[2].split(",")] for row in rows}
    found = variables_read(root)
    if len(documented) != len(rows):
        yield "docs/environment.tsv: a variable has two rows"
    for variable, readers in sorted(found.items()):
        for reader, place in readers.items():
            if reader not in documented.get(variable, []):
                yield (f"{place}: reads {variable}, which docs/environment.tsv does not list as "
                       f"read by '{reader}'")
    for variable, readers in sorted(documented.items()):
        for reader in readers:
            if reader not in READERS:
                known = ", ".join(READERS)
                yield f"docs/environment.tsv: {variable}: no reader '{reader}'; known: {known}"
            elif reader not in found.get(variable, {}):
                yield (f"docs/environment.tsv: {variable}: nothing under {READERS[reader]} "
                       "reads it")
    page = root / "docs/environment.md"
    if not page.exists() or page.read_text() != render(rows):
        yield "docs/environment.md: is not what the table says; run: python3 docs/environment.py"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true",
                        help="compare only; exit status 1 on a difference")
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    arguments = parser.parse_args(argv)
    if not arguments.check:
        (arguments.root / "docs/environment.md").write_text(render(read_table(arguments.root)))
        return 0
    found = list(differences(arguments.root))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
