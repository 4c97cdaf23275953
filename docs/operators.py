# SPDX-License-Identifier: Apache-2.0
"""Keeps docs/operators.md, the page of the operator catalogue, equal to hal/include/xhal/ops.inc.

  python3 docs/operators.py           writes docs/operators.md
  python3 docs/operators.py --check   changes nothing; exit status 1 when the page is not current
"""

import argparse
import pathlib
import re
import sys

FIELDS = ("name", "id", "version", "inputs", "outputs", "attributes", "scalars", "shape", "alias",
          "determinism", "tolerance", "flops", "bytes", "prose")
TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([^\s,"()]+)')
ENTRY = re.compile(r"^XHAL_OP\((.*)\)\s*$")
COMMENT = re.compile(r"^/\*\s*(.*?)\s*\*/\s*$")

HEADER = """# The operator catalogue

<!-- Written by docs/operators.py from hal/include/xhal/ops.inc: edit the list, run that script. -->

What every operator takes, gives and promises: {count} operators. Frameworks prepare them by number
(`XHAL_OP_<name>`, catalog.h), plugins implement what they can and refuse the rest with a reason,
and `xhal-cts` compares each with a float64 reference. A test keeps this page and the list equal.

- **operands**: inputs `->` outputs, in the order of `xhal_op_prepare`. `?`: the group may be
  absent, `*`: it has any number of tensors. Types: `F` f32, bf16, f16; `N` F and the integers; `A`
  N and bool; `X` i32, i64; `L` i64; `B` bool; `S` f32; `+f64` adds a dtype. F, N and A of one
  operator are one dtype unless the text says otherwise. A dtype that is not listed is
  INVALID_ARGUMENT; one that is listed and that a plugin does not have is UNSUPPORTED.
- **arithmetic**: floats are computed in f32 (in f64 when an operand is f64) and rounded once, to
  nearest even, when stored. Integers and bool are computed as i64; stored, integers wrap to their
  width and bool is "not 0".
- **conversion**: float to integer truncates towards zero to i64, then wraps to the width; NaN, the
  infinities and what no i64 holds give the least i64, which is 0 in every narrower dtype. To bool:
  not 0, so NaN is true. To a float: the exact value rounded once, also f64 and i64 to bf16 and f16;
  beyond the largest it is infinite. A launch scalar is first converted to what is computed in:
  beside integers, 0.5 is 0.
- **static**: attributes with their defaults, fixed at prepare (`i` integer, `f` float, `ii` list).
  **per launch**: scalars with their defaults, given at each launch by value or by device address.
- **sizes**: *broadcast*: every operand already has the output's sizes, by stride 0 where it is
  repeated. Else a word for every group: `n,c,S` dimensions, where a small name is one, a capital
  name a run of any number, and a name that comes again has the same size; `@k` the value of an
  attribute, `*` any sizes, `[]` no dimensions, `one` a single element. The functions (`reduced(S)`
  and so on) are explained at the head of ops.inc. What does not agree is INVALID_ARGUMENT.
- **in place**: outputs that may have the address of an input. Nothing else may overlap.
- **exact**: `exact`; `ulp` one rounding of the f32 result; `sum` n * eps of the sum of magnitudes;
  `gemm`; `random`. Same inputs give the same bits on any number of threads, except where `seed` or
  `not deterministic` stands behind it.
- **flops**: of one run; `out`, `in` are elements, `k` the length contracted or reduced.
"""


class Bad(Exception):
    pass


def parse(text):
    """[(section title, [operator])]; an operator is a dict by FIELDS."""
    sections = []
    in_comment = False
    for number, line in enumerate(text.splitlines(), 1):
        title, entry = COMMENT.match(line), ENTRY.match(line)
        if in_comment or (line.startswith("/*") and not title):
            in_comment = "*/" not in line
        elif title:
            sections.append((title.group(1), []))
        elif entry:
            cells = [quoted if bare == "" else bare
                     for quoted, bare in TOKEN.findall(entry.group(1))]
            if len(cells) != len(FIELDS) or not sections:
                raise Bad(f"ops.inc:{number}: want {len(FIELDS)} fields under a section comment, "
                          f"found {len(cells)}")
            sections[-1][1].append(dict(zip(FIELDS, cells)))
        elif line.strip():
            raise Bad(f"ops.inc:{number}: neither an operator nor a comment: {line[:40]}")
    return sections


def cell(text):
    return text.replace("|", "\\|").replace("*", "\\*").replace("_", "\\_").replace("<", "&lt;")


def code(text):
    """Words in code style; a table cell may be empty."""
    return " ".join(f"`{word}`" for word in text.split())


def row(op):
    operands = f"{code(op['inputs']) or '(none)'} -> {code(op['outputs'])}"
    exact = op["tolerance"]
    exact += {"yes": "", "seed": ", seed", "no": ", not deterministic"}[op["determinism"]]
    name = op["name"] + ("" if op["version"] == "1" else f" v{op['version']}")
    cells = [op["id"], f"**{cell(name)}**", cell(op["prose"]), operands, code(op["attributes"]),
             code(op["scalars"]), cell(op["shape"]), code(op["alias"]) if "=" in op["alias"]
             else op["alias"], exact, f"`{op['flops']}`"]
    return "| " + " | ".join(cells) + " |"


def render(sections):
    count = sum(len(operators) for _, operators in sections)
    page = [HEADER.format(count=count)]
    for title, operators in sections:
        heading, _, rest = title.partition("; ")
        page.append(f"## {heading[0].upper()}{heading[1:]}\n")
        if rest:
            page.append(f"{rest[0].upper()}{rest[1:]}.\n")
        page.append("| id | operator | meaning | operands | static | per launch | sizes | in place "
                    "| exact | flops |\n|--:|---|---|---|---|---|---|---|---|---|")
        page.extend(row(op) for op in operators)
        page.append("")
    return "\n".join(page)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true",
                        help="compare only; exit status 1 on a difference")
    parser.add_argument("--root", type=pathlib.Path,
                        default=pathlib.Path(__file__).resolve().parent.parent)
    arguments = parser.parse_args(argv)
    page = arguments.root / "docs/operators.md"
    try:
        text = render(parse((arguments.root / "hal/include/xhal/ops.inc").read_text()))
    except Bad as error:
        print(error)
        return 1
    if not arguments.check:
        page.write_text(text)
        return 0
    if page.exists() and page.read_text() == text:
        return 0
    print("docs/operators.md is not what ops.inc says; run: python3 docs/operators.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
