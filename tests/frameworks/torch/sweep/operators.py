# SPDX-License-Identifier: Apache-2.0
"""The operators that are swept, and how a call of each is drawn.

An operator is a function of a random source that returns a call: the function, its operands
(Lying) and the rest of its arguments. Which forms it has (functional, in place, out=) is found by
name.
"""

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from tensors import FLOATS, INTEGERS, NATIVE, RARE, Lying, broadcastable, lying, sizes


@dataclass
class Call:
    function: object
    operands: list
    rest: tuple = ()
    options: dict = field(default_factory=dict)
    forms: tuple = ("functional",)
    in_place: object = None
    # Whether torch promises the strides of the result, and whether its order or ties are free.
    strides: bool = False
    tolerance: float = 1.0


OPERATORS = {}


def operator(name):
    def add(draw):
        OPERATORS[name] = draw
        return draw

    return add


def any_type(r):
    return r.choice(NATIVE if r.random() < 0.93 else RARE)


def forms_of(name):
    forms = ["functional", "out"]
    if hasattr(torch.Tensor, name + "_"):
        forms.append("in place")
    return tuple(forms)


def in_place_of(name):
    method = getattr(torch.Tensor, name + "_", None)
    return method and (lambda x, *rest, **options: method(x, *rest, **options))


# ---- pointwise -----------------------------------------------------------------------------------

UNARY = """neg abs sign sgn exp exp2 expm1 log log1p log2 log10 sqrt rsqrt reciprocal sin cos tan
tanh sinh cosh sigmoid erf floor ceil trunc round frac square logical_not bitwise_not isnan isinf
isfinite isposinf isneginf positive nan_to_num deg2rad""".split()
LIMITS = {"log": (0.1, 4), "log2": (0.1, 4), "log10": (0.1, 4), "sqrt": (0, 4), "rsqrt": (0.1, 4),
          "reciprocal": (0.2, 4), "log1p": (-0.5, 4), "tan": (-1.4, 1.4)}  # fmt: skip
for _name in UNARY:

    @operator(_name)
    def _unary(r, name=_name):
        low, high = LIMITS.get(name, (-3, 3))
        x = lying(r, sizes(r), any_type(r), low=low, high=high)
        without_out = name in ("isnan", "isinf", "isfinite", "positive", "deg2rad")
        forms = tuple(f for f in forms_of(name) if f != "out" or not without_out)
        return Call(getattr(torch, name), [x], forms=forms, in_place=in_place_of(name),
                    strides=True)  # fmt: skip


def pair(r, types=any_type, **limits):
    size = sizes(r)
    first, second = types(r), types(r)
    if r.random() < 0.6:
        second = first
    other = broadcastable(r, size) if r.random() < 0.5 else size
    operands = [lying(r, size, first, **limits), lying(r, other, second, **limits)]
    if r.random() < 0.2:
        operands.reverse()
    return operands


BINARY = """add sub mul div maximum minimum fmax fmin pow atan2 xlogy eq ne lt le gt ge logical_and
logical_or logical_xor bitwise_and bitwise_or bitwise_xor hypot copysign logaddexp""".split()
for _name in BINARY:

    @operator(_name)
    def _binary(r, name=_name):
        limits = {"low": 0.2, "high": 2.5} if name in ("pow", "xlogy") else {}
        if name == "div":
            limits = {"low": 0.4, "high": 3}
        operands = pair(r, **limits)
        if r.random() < 0.25:  # a number in the place of the second
            number = r.choice([2, 0.5, -1, True, 3.0, 2 if name == "xlogy" else 1 << 35])
            if name in ("add", "sub", "mul", "div", "eq", "ne", "lt", "le", "gt", "ge", "pow",
                        "xlogy", "bitwise_and", "bitwise_or", "bitwise_xor"):  # fmt: skip
                return Call(getattr(torch, name), operands[:1], (number,), forms=("functional",
                            "in place"), in_place=in_place_of(name), strides=True)  # fmt: skip
        options = {}
        if name in ("add", "sub") and r.random() < 0.3:
            options = {"alpha": r.choice([2, 0.5, -1])}
        return Call(getattr(torch, name), operands, (), options, forms_of(name), in_place_of(name),
                    strides=True)  # fmt: skip


@operator("remainder and fmod")
def _remainder(r):
    name = r.choice(["remainder", "fmod", "floor_divide"])
    size = sizes(r)
    dtype = any_type(r)
    x = lying(r, size, dtype)
    other = any_type(r) if r.random() < 0.4 else dtype
    if other == torch.bool:
        other = torch.int32
    y = lying(r, size, other, low=0.5, high=4, special=0)
    y.base = torch.where(y.base == 0, torch.ones_like(y.base), y.base)
    return Call(getattr(torch, name), [x, y], (), {}, forms_of(name), in_place_of(name),
                strides=True)  # fmt: skip


@operator("div by rounding mode")
def _div_mode(r):
    dtype = r.choice(FLOATS + INTEGERS)
    size = sizes(r)
    x, y = lying(r, size, dtype), lying(r, size, dtype, low=1, high=4, special=0)
    y.base = torch.where(y.base == 0, torch.ones_like(y.base), y.base)
    mode = r.choice([None, "trunc", "floor"])
    return Call(torch.div, [x, y], (), {"rounding_mode": mode}, ("functional", "in place", "out"),
                lambda x, y, rounding_mode: x.div_(y, rounding_mode=rounding_mode),
                strides=True)  # fmt: skip


@operator("shifts")
def _shifts(r):
    name = r.choice(["bitwise_left_shift", "bitwise_right_shift"])
    dtype = r.choice(INTEGERS)
    size = sizes(r)
    x, y = lying(r, size, dtype), lying(r, size, dtype, low=0, high=2)
    y.base = y.base.clamp(0, 6)
    return Call(getattr(torch, name), [x, y], forms=forms_of(name), in_place=in_place_of(name),
                strides=True)  # fmt: skip


def three(r):
    size = sizes(r)
    dtype = r.choice(FLOATS)
    others = [dtype if r.random() < 0.8 else any_type(r) for _ in range(2)]
    return [lying(r, size, dtype)] + [
        lying(r, broadcastable(r, size), t, low=0.5, high=3) for t in others
    ]


@operator("addcmul and addcdiv")
def _accumulate(r):
    name = r.choice(["addcmul", "addcdiv"])
    options = {"value": r.choice([2, 0.5])} if r.random() < 0.5 else {}
    return Call(getattr(torch, name), three(r), (), options, forms_of(name), in_place_of(name),
                strides=True)  # fmt: skip


@operator("lerp")
def _lerp(r):
    operands = three(r)
    if r.random() < 0.5:
        return Call(torch.lerp, operands[:2], (0.3,), {}, forms_of("lerp"), in_place_of("lerp"),
                    strides=True)  # fmt: skip
    return Call(torch.lerp, operands, (), {}, forms_of("lerp"), in_place_of("lerp"), strides=True)


@operator("where")
def _where(r):
    size = sizes(r)
    x, y = pair(r)
    condition = lying(r, broadcastable(r, size), torch.bool)
    return Call(torch.where, [condition, x, y], forms=("functional", "out"), strides=True)


@operator("clamp")
def _clamp(r):
    x = lying(r, sizes(r), any_type(r))
    if r.random() < 0.4:
        low = lying(r, broadcastable(r, x.size), x.base.dtype if r.random() < 0.7 else any_type(r))
        return Call(torch.clamp, [x, low], (), {}, forms_of("clamp"), in_place_of("clamp"))
    limits = {"min": r.choice([None, -1, 0.5]), "max": r.choice([None, 2, 1.5])}
    return Call(torch.clamp, [x], (), limits, forms_of("clamp"), in_place_of("clamp"), strides=True)


@operator("masked_fill")
def _masked_fill(r):
    x = lying(r, sizes(r), any_type(r))
    mask = lying(r, broadcastable(r, x.size), torch.bool)
    return Call(torch.masked_fill, [x, mask], (r.choice([0, 1, 2.5, -1]),),
                forms=("functional", "in place"), in_place=torch.Tensor.masked_fill_,
                strides=True)  # fmt: skip


ACTIVATIONS = [F.relu, F.gelu, F.silu, F.leaky_relu, F.elu, F.hardswish, F.hardsigmoid, F.softplus,
               F.logsigmoid, F.hardtanh, F.mish, F.selu, F.relu6]  # fmt: skip


@operator("activations")
def _activation(r):
    return Call(r.choice(ACTIVATIONS), [lying(r, sizes(r), any_type(r))], strides=True)


@operator("casts")
def _cast(r):
    to = r.choice(NATIVE + [torch.float64])
    return Call(lambda x: x.to(to), [lying(r, sizes(r), r.choice(NATIVE), special=0)], strides=True)


@operator("copy_")
def _copy(r):
    size = sizes(r)
    x, y = lying(r, size, r.choice(NATIVE)), lying(r, broadcastable(r, size), r.choice(NATIVE),
                                                   special=0)  # fmt: skip
    return Call(lambda x, y: x.clone().copy_(y), [x, y], (), {}, ("functional", "in place"),
                torch.Tensor.copy_)  # fmt: skip


@operator("foreach")
def _foreach(r):
    dtype, size = r.choice(FLOATS + [torch.int64]), sizes(r)
    name = r.choice(["add", "sub", "mul", "div", "lerp"])
    operands = [lying(r, size, dtype if r.random() < 0.9 else any_type(r), low=0.5) for _ in "1234"]
    rest = (0.5,) if name == "lerp" else ()

    def call(a, b, c, d, *rest):
        return getattr(torch, "_foreach_" + name)([a, b], [c, d], *rest)

    def in_place(a, b, c, d, *rest):
        getattr(torch, f"_foreach_{name}_")([a, b], [c, d], *rest)
        return a

    return Call(call, operands, rest, forms=("functional", "in place"), in_place=in_place)
