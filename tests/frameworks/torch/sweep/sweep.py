# SPDX-License-Identifier: Apache-2.0
"""A differential sweep: random calls of torch's operators on the CPU and on xhal.

Both compute (same type, sizes, values; strides where torch promises them; the memory beside the
operands untouched) or both refuse. Each finding is printed with the line that repeats it:

    ./dev run python tests/frameworks/torch/sweep/sweep.py --minutes 20
    ./dev run python tests/frameworks/torch/sweep/sweep.py --only add --seed 7
    ./dev run python tests/frameworks/torch/sweep/sweep.py --case add:7:1234
"""

import argparse
import random
import sys
import time
import warnings
from dataclasses import dataclass

import known
import operators_more  # noqa: F401 - adds to the table
import torch
from operators import OPERATORS
from tensors import FLOATS, NATIVE, Lying, lying

TOLERANCE = {torch.float32: 3e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float64: 1e-9,
             torch.complex64: 3e-5, torch.complex128: 1e-9}  # fmt: skip


@dataclass
class Finding:
    case: str
    kind: str
    text: str


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in flat(v)]
    return []


def draw_out(r, call, expected):
    """An out= tensor: mostly of the right type and sizes, sometimes of others, or on an operand."""
    dtype, size = expected.dtype, tuple(expected.shape)
    chance = r.random()
    if chance < 0.1 and call.operands[0].size == size:
        return call.operands[0] if chance < 0.05 else call.operands[0].shifted(1)
    if chance < 0.25:
        dtype = r.choice(NATIVE)
    if chance > 0.85:
        size = (0,) if chance > 0.93 else (3, 2)
    return lying(r, size, dtype, special=0)


def run(call, form, out, device):
    """The result, or the error; and the memory of the operands afterwards."""
    made = {}
    operands = [o.on(device, made) for o in call.operands]
    result = error = None
    try:
        if form == "in place":
            result = call.in_place(*operands, *call.rest, **call.options)
        elif form == "out":
            written = out.on(device, made)
            result = call.function(*operands, *call.rest, **call.options, out=written)
        else:
            result = call.function(*operands, *call.rest, **call.options)
        if device != "cpu":
            torch.xhal.synchronize()
    except Exception as problem:  # noqa: BLE001 - that there is one is compared
        error = problem
        if device != "cpu":
            torch.xhal.recover()
    memory = {}
    for lies in [*call.operands, *([out] if out is not None else [])]:
        memory[id(lies.base)] = made[id(lies.base)]
    return result, error, memory


def reference(call):
    """The call in f64, for results that two roundings may tell apart."""
    wide = []
    for lies in call.operands:
        view = lies.on("cpu", {})
        wide.append(view.double() if view.is_floating_point() else view)
    options = {k: v for k, v in call.options.items() if k != "dtype"}
    try:
        return flat(call.function(*wide, *call.rest, **options))
    except Exception:  # noqa: BLE001 - then there is none
        return None


def coarsest(call):
    """What one rounding to the coarsest type among the operands may cost."""
    return max([TOLERANCE.get(o.base.dtype, 0) for o in call.operands], default=0)


def far(actual, expected, exact, tolerance, least=0.0):
    """The first element that differs, as a text."""
    a, e = actual.flatten(), expected.flatten()
    if not (e.dtype.is_floating_point or e.dtype.is_complex):
        wrong = a != e
    else:
        limit = max(TOLERANCE[e.dtype], least) * tolerance
        wrong = ~torch.isclose(a, e, rtol=limit, atol=limit, equal_nan=True)
        if exact is not None and bool(wrong.any()):
            x = exact.flatten().to(torch.float64)
            near = (a.double() - x).abs() <= 2 * (e.double() - x).abs() + limit * x.abs() + limit
            # Past the largest number of a type the two may round to it or to infinity.
            wrong &= ~near
    if not bool(wrong.any()):
        return None
    at = int(wrong.nonzero()[0])
    return f"element {at} is {a[at].item()}, on the CPU {e[at].item()}"


def compare(call, form, expected, actual, exact):
    """What differs between two results, or None."""
    for n, (e, a) in enumerate(zip(expected, actual, strict=True)):
        if a.device.type != "xhal":
            return "device", f"result {n} is on {a.device}"
        if a.dtype != e.dtype:
            return "type", f"{a.dtype}, on the CPU {e.dtype}"
        if a.shape != e.shape:
            return "sizes", f"{list(a.shape)}, on the CPU {list(e.shape)}"
        promised = call.strides and form == "functional" and e.numel() > 1
        steps = [(x, y) for x, y, s in zip(a.stride(), e.stride(), e.shape) if s > 1]
        if promised and any(x != y for x, y in steps):
            return "strides", f"{a.stride()} of {list(e.shape)}, on the CPU {e.stride()}"
        reference_n = exact[n] if exact and len(exact) == len(expected) else None
        if reference_n is not None and reference_n.shape != e.shape:
            reference_n = None
        text = far(a.cpu(), e, reference_n, call.tolerance, coarsest(call))
        if text:
            return "value", text
    return None


def describe(call, form, out):
    function = getattr(call.function, "__name__", "call")
    operands = ", ".join(map(repr, call.operands))
    rest = f" {call.rest}" if call.rest else ""
    options = f" {call.options}" if call.options else ""
    into = f" out={out!r}" if out is not None else ""
    return f"{function}, {form}: {operands}{rest}{options}{into}"


def differ(call, form, out):
    """Runs a call on both; the kind of difference and its text, or None."""
    expected, refused, memory = run(call, form, out, "cpu")
    if refused is not None and known.lacks_a_kernel(refused):
        return None
    actual, error, there = run(call, form, out, "xhal")
    if refused is not None or error is not None:
        if (refused is None) != (error is None):
            kind = "refused" if refused is None else "computed"
            first = str(error or refused).strip().splitlines() or [""]
            return kind, f"{type(error or refused).__name__}: {first[0][:200]}"
        return None
    exact = reference(call) if form == "functional" else None
    found = compare(call, form, flat(expected), flat(actual), exact)
    if found:
        return found
    resized = out is not None and flat(expected)[0].shape != out.size
    for key, here in memory.items():
        if resized and key == id(out.base):
            continue  # it has other memory, or the old memory in another form
        text = far(there[key].cpu(), here, None, call.tolerance * 2, coarsest(call))
        if text:
            return "memory", text
    return None


def one(case):
    """Runs the case of a name; a Finding or None."""
    name, seed, number = case.rsplit(":", 2)
    r = random.Random(f"{name} {seed} {number}")
    torch.manual_seed(r.getrandbits(31))
    call = OPERATORS[name](r)
    form, out = r.choice(call.forms), None
    if form == "in place" and call.in_place is None:
        form = "functional"
    if form == "out":
        expected, refused, _ = run(call, "functional", None, "cpu")
        if refused is not None or not isinstance(expected, torch.Tensor):
            form = "functional"
        else:
            out = draw_out(r, call, expected)
    found = differ(call, form, out)
    if not found:
        return None
    kind, text = found
    on_operand = out is not None and any(o.base is out.base for o in call.operands)
    if known.reason(name, kind, form, on_operand, text):
        return None
    return Finding(case, kind, f"{describe(call, form, out)}\n    {kind}: {text}")


def sweep(seed, minutes, only=None, most=25, rounds=None, say=print):
    """Runs cases for so many minutes or rounds, every operator once a round; the findings."""
    names = sorted(n for n in OPERATORS if only in (None, n))
    if not names:
        raise SystemExit(f"there is no operator {only!r}; there are: {sorted(OPERATORS)}")
    findings, counts, number = [], {}, 0
    end = time.monotonic() + 60 * minutes
    say(f"sweep: seed {seed}, {minutes} minutes, {len(names)} operators")
    while time.monotonic() < end and number != rounds:
        for name in names:
            found = one(f"{name}:{seed}:{number}")
            if not found:
                continue
            key = (name, found.kind)
            counts[key] = counts.get(key, 0) + 1
            if counts[key] <= 3 and len(findings) < most:
                findings.append(found)
                say(f"{found.kind}: {found.text}\n    repeat: sweep.py --case '{found.case}'")
        number += 1
    say(f"sweep: {number * len(names)} calls, {sum(counts.values())} differ")
    for (name, kind), count in sorted(counts.items(), key=lambda c: -c[1]):
        say(f"  {count:5d}  {name}: {kind}")
    return findings


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", default=str(random.SystemRandom().randrange(10**6)))
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--only", help="one operator of the table")
    parser.add_argument("--case", help="one case, as printed with a finding")
    parser.add_argument("--most", type=int, default=60, help="findings that are printed")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.case:
        found = one(options.case)
        print(found.text if found else "no difference")
        return bool(found)
    return bool(sweep(options.seed, options.minutes, options.only, options.most))


if __name__ == "__main__":
    sys.exit(main())
