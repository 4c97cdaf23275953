# SPDX-License-Identifier: Apache-2.0
"""Pointwise operators, reductions and sorting against torch's CPU."""

import pytest
import torch
import torch.nn.functional as F

from compare import FLOATS, INTEGERS, check, layouts, make, same, to_device

UNARY = {
    "neg": torch.neg,
    "abs": torch.abs,
    "sign": torch.sign,
    "exp": torch.exp,
    "expm1": torch.expm1,
    "sqrt": torch.sqrt,
    "rsqrt": torch.rsqrt,
    "reciprocal": torch.reciprocal,
    "log": torch.log,
    "log1p": torch.log1p,
    "log2": torch.log2,
    "sin": torch.sin,
    "cos": torch.cos,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "erf": torch.erf,
    "relu": F.relu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "floor": torch.floor,
    "ceil": torch.ceil,
    "trunc": torch.trunc,
    "round": torch.round,
    "logical_not": torch.logical_not,
    "isnan": torch.isnan,
    "isinf": torch.isinf,
    "isposinf": torch.isposinf,
    "clamp": lambda x: x.clamp(-0.5, 1.0),
    "clamp_min": lambda x: x.clamp_min(0.25),
    "square": torch.square,
    "cube": lambda x: x**3,
    "pow": lambda x: x.abs() ** 1.5,
    "add number": lambda x: x + 3,
    "rsub": lambda x: 1 - x,
    "div number": lambda x: x / 3,
    "compare": lambda x: x > 0.5,
    "masked_fill": lambda x: x.masked_fill(x > 0, -1.0),
}
POSITIVE = {"sqrt", "rsqrt", "reciprocal", "log", "log2"}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name, dtype, no_fallback):
    low = 0.1 if name in POSITIVE else -0.9 if name == "log1p" else -2.0
    for shape in [(5, 7), (3, 4, 6), (), (0, 3), (1, 1), (1025,)]:
        for _, x in layouts(make(dtype, *shape, low=low)):
            check(UNARY[name], x, gradient=x.is_contiguous() and x.numel() > 0)


BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "eq": torch.eq,
    "ne": torch.ne,
    "lt": torch.lt,
    "le": torch.le,
    "gt": torch.gt,
    "ge": torch.ge,
    "alpha": lambda a, b: torch.add(a, b, alpha=2),
    "rsub alpha": lambda a, b: torch.sub(a, b, alpha=3),
    "floor_divide": torch.floor_divide,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
    "logical_and": torch.logical_and,
    "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
    "where": lambda a, b: torch.where(a > b, a, b),
    "lerp": lambda a, b: torch.lerp(a, b, 0.3),
    "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.5),
    "addcdiv": lambda a, b: torch.addcdiv(a, a, b, value=0.5),
    "trunc": lambda a, b: torch.div(a, b, rounding_mode="trunc"),
}
FLOAT_ONLY = {"lerp", "addcdiv", "addcmul"}
NO_GRADIENT = {"floor_divide", "trunc", "remainder", "fmod", "maximum", "minimum", "where"}
SHAPES = [
    ((5, 7), (5, 7)),
    ((5, 7), (7,)),
    ((5, 1), (1, 7)),
    ((2, 3, 4), (3, 1)),
    ((), (3,)),
    ((4,), ()),
    ((0, 3), (3,)),
    ((1030,), (1030,)),
]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", BINARY)
def test_binary(name, dtype, no_fallback):
    for left, right in SHAPES:
        a = make(dtype, *left)
        b = make(dtype, *right, low=0.5, seed=1)
        for _, x in layouts(a):
            check(BINARY[name], x, b, gradient=name not in NO_GRADIENT and a.numel() > 0)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
@pytest.mark.parametrize("name", [n for n in BINARY if n not in FLOAT_ONLY])
def test_binary_of_integers(name, dtype, no_fallback):
    for left, right in SHAPES:
        b = make(dtype, *right, seed=1)
        check(BINARY[name], make(dtype, *left), b.abs() + (b == 0).to(dtype))


@pytest.mark.parametrize(
    "left",
    [torch.float32, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool],
    ids=str,
)
@pytest.mark.parametrize(
    "right", [torch.float32, torch.float16, torch.int64, torch.int8, torch.bool], ids=str
)
def test_mixed_types_promote_as_on_the_cpu(left, right, no_fallback):
    a, b = make(left, 4, 5), make(right, 5, seed=1)
    for function in (
        torch.add,
        torch.mul,
        torch.eq,
        torch.maximum,
        lambda x, y: torch.where(x > 0, x, y),
    ):
        check(function, a, b)
    check(lambda x: x + 1, a)
    check(lambda x: x * 2.5, a)
    check(lambda x: x / 2, a)


def test_numbers_of_the_host_become_scalars(no_fallback):
    x = make(torch.float32, 3, 4)
    for number in (torch.tensor(2), torch.tensor(2.5), torch.tensor(3, dtype=torch.int32)):
        same(x.to("xhal") * number, x * number)
        same(number - x.to("xhal"), number - x)
        same(
            torch.where(x.to("xhal") > 0, x.to("xhal"), number.float()),
            torch.where(x > 0, x, number.float()),
        )


def test_bits(no_fallback):
    for dtype in (torch.int64, torch.int32, torch.uint8, torch.bool):
        a, b = make(dtype, 4, 5), make(dtype, 5, seed=3)
        for function in (torch.bitwise_and, torch.bitwise_or, torch.bitwise_xor):
            check(function, a, b)
        check(torch.bitwise_not, a)
    check(torch.bitwise_left_shift, make(torch.int64, 9), torch.arange(9))


def test_in_place_and_out_variants(no_fallback):
    x, y = make(torch.float32, 4, 6), make(torch.float32, 4, 6, seed=1)

    def several(a, b):
        a = a.clone()
        a.add_(b).mul_(2).sub_(b, alpha=0.5).div_(3).clamp_(-1, 1).lerp_(b, 0.1).addcmul_(
            a, b, value=0.2
        )
        a[:, ::2] += 1
        a.t().mul_(0.5)
        return a

    check(several, x, y)
    out = torch.empty(0, device="xhal")
    torch.add(x.to("xhal"), y.to("xhal"), out=out)
    same(out, x + y)
    narrow = torch.empty(4, 6, dtype=torch.bfloat16, device="xhal")
    torch.add(x.to("xhal"), y.to("xhal"), out=narrow)
    same(narrow, (x + y).bfloat16())
    with pytest.raises(RuntimeError, match="can't be cast"):
        torch.add(
            x.to("xhal"), y.to("xhal"), out=torch.empty(4, 6, dtype=torch.int64, device="xhal")
        )


REDUCTIONS = {
    "sum": lambda x, d, k: x.sum(d, keepdim=k),
    "mean": lambda x, d, k: x.mean(d, keepdim=k),
    "amax": lambda x, d, k: x.amax(d, keepdim=k),
    "amin": lambda x, d, k: x.amin(d, keepdim=k),
    "norm": lambda x, d, k: torch.linalg.vector_norm(x, dim=d, keepdim=k),
    "norm1": lambda x, d, k: torch.linalg.vector_norm(x, 1, dim=d, keepdim=k),
    "var": lambda x, d, k: x.var(d, keepdim=k),
    "std": lambda x, d, k: x.std(d, keepdim=k, correction=0),
    "var_mean": lambda x, d, k: torch.var_mean(x, d, keepdim=k),
    "logsumexp": lambda x, d, k: x.logsumexp(d, keepdim=k),
    "any": lambda x, d, k: (x > 1).any(d[0], keepdim=k),
    "all": lambda x, d, k: (x > -9).all(d[0], keepdim=k),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(name, dtype, no_fallback):
    for dims in [(0,), (1,), (-1,), (0, 2), (0, 1, 2)]:
        for keep in (False, True):
            for _, x in layouts(make(dtype, 3, 5, 6)):
                check(
                    lambda t: REDUCTIONS[name](t, dims, keep),
                    x,
                    gradient=name in ("sum", "mean", "norm", "var"),
                    scale=4,
                )


def test_whole_reductions(no_fallback):
    for dtype in FLOATS:
        x = make(dtype, 37, 5)
        for function in (torch.sum, torch.mean, torch.max, torch.min, torch.prod, torch.norm):
            check(function, x * 0.9 if function is torch.prod else x, scale=8)
    for dtype in INTEGERS + [torch.bool]:
        x = make(dtype, 6, 5)
        check(torch.sum, x)
        check(lambda t: t.sum(0), x)
        check(torch.any, x)
    check(lambda x: x.sum(dtype=torch.float32), make(torch.bfloat16, 100), scale=4)
    check(lambda x: x.sum(0), make(torch.float32, 0, 3))


def test_order(no_fallback):
    x = torch.randperm(60, generator=torch.Generator().manual_seed(0)).reshape(5, 12)
    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        y = x.to(dtype)
        check(lambda t: t.argmax(), y)
        check(lambda t: t.argmax(1), y)
        check(lambda t: t.argmin(0, keepdim=True), y)
        check(lambda t: t.max(1), y)
        check(lambda t: t.min(0), y)
        check(lambda t: t.sort(1), y)
        check(lambda t: t.sort(0, descending=True), y)
        check(lambda t: t.topk(3, 1), y)
        check(lambda t: t.topk(2, 0, largest=False), y)
        check(lambda t: t.argsort(1), y)
    check(lambda t: t.cumsum(1), make(torch.float32, 4, 9), gradient=True)
    check(lambda t: t.cumsum(0), make(torch.int32, 4, 9))
    check(lambda t: t.cumsum(0), make(torch.bool, 4, 9))


def test_what_the_device_lacks_runs_on_the_host_and_is_counted():
    x = make(torch.float64, 3, 4)
    same(x.to("xhal").exp(), x.exp())
    same(
        torch.linalg.inv(make(torch.float32, 3, 3).to("xhal") + 3 * torch.eye(3, device="xhal")),
        torch.linalg.inv(make(torch.float32, 3, 3) + 3 * torch.eye(3)),
    )
    counts = torch.xhal.fallbacks()
    assert counts["aten::exp"] >= 1 and any("linalg_inv" in name for name in counts)


COMPOSED = {
    "log10": lambda x: x.abs().add(0.1).log10(),
    "exp2": torch.exp2,
    "frac": torch.frac,
    "tan": torch.tan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "fmax": lambda x: torch.fmax(x, x.flip(0)),
    "fmin": lambda x: torch.fmin(x, x.flip(0)),
    "xlogy": lambda x: torch.xlogy(x, x.abs() + 0.5),
    "nan_to_num": lambda x: (x / (x > 1)).nan_to_num(nan=3.0),
    "std_mean": lambda x: torch.std_mean(x, 0),
    "nansum": lambda x: (x / (x > 1)).nan_to_num(posinf=1, neginf=1).nansum(1),
    "norm": lambda x: torch.norm(x, 3, 1),
    "aminmax": lambda x: tuple(torch.aminmax(x, dim=1)),
    "roll": lambda x: x.roll((1, -3), (0, 1)),
    "roll flat": lambda x: x.roll(5),
    "index_copy": lambda x: x.index_copy(0, torch.tensor([2, 0], device=x.device), x[:2]),
    "index_fill": lambda x: x.index_fill(1, torch.tensor([2, -1], device=x.device), 0.5),
    "take": lambda x: x.take(torch.tensor([[3, -1]], device=x.device)),
    "sgn": torch.sgn,
}


@pytest.mark.parametrize("name", COMPOSED)
def test_composed(name, no_fallback):
    x = make(torch.float32, 5, 6)
    check(COMPOSED[name], x, gradient=name not in ("nansum", "take", "fmax", "fmin"), scale=4)
    for _, lying in layouts(x):
        check(COMPOSED[name], lying, scale=4)


def test_fmax_prefers_numbers_to_nan(no_fallback):
    x, y = torch.tensor([1.0, float("nan"), 2.0]), torch.tensor([float("nan"), 3.0, 1.0])
    check(torch.fmax, x, y)
    check(torch.fmin, x, y)


def test_small_operators(no_fallback):
    for arguments in [(0, 1, 7), (2, -3, 1), (-1.5, 2.5, 64), (0, 1, 0)]:
        expected = torch.linspace(*arguments)
        same(torch.linspace(*arguments, device="xhal"), expected)
        if arguments[2] > 1:
            assert torch.linspace(*arguments, device="xhal")[-1].item() == expected[-1].item()
    same(torch.eye(4, 6, device="xhal"), torch.eye(4, 6))
    x = make(torch.float32, 4, 4)
    y = x.to("xhal")
    assert torch.equal(y, y.clone()) and not torch.equal(y, y + 1)
    assert not torch.equal(y, y[:2])
    same(y.trace(), x.trace())
    same(torch.count_nonzero(y > 0), torch.count_nonzero(x > 0))
    same(torch.tensor(2.0, device="xhal").nonzero(), torch.tensor(2.0).nonzero())
    same(torch.tensor(0.0, device="xhal").nonzero(), torch.tensor(0.0).nonzero())
    same(F.channel_shuffle(y.view(1, 4, 2, 2), 2), F.channel_shuffle(x.view(1, 4, 2, 2), 2))
    i = make(torch.int64, 5)
    same(i.to("xhal") << 2, i << 2)
    same(i.to("xhal").clamp(0.5, 3), i.clamp(0.5, 3))
    check(torch.addbmm, x, make(torch.float32, 2, 4, 3), make(torch.float32, 2, 3, 4))


def test_normal_numbers_around_given_means(no_fallback):
    mean = torch.full((40_000,), 3.0, device="xhal")
    for sample in (
        torch.normal(mean, 2.0),
        torch.normal(3.0, mean * 0 + 2),
        torch.normal(mean, 2 + 0 * mean),
    ):
        assert sample.mean().item() == pytest.approx(3, abs=0.1)
        assert sample.std().item() == pytest.approx(2, abs=0.1)
    assert torch.empty(40_000, device="xhal").log_normal_(
        1, 0.5
    ).log().mean().item() == pytest.approx(1, abs=0.05)


def test_second_derivatives_through_zeros_without_memory(no_fallback):
    def second(x):
        return torch.func.hessian(lambda t: (t**3).sum() + t.sgn().sum())(x)

    check(second, make(torch.float32, 4), scale=2)


def test_an_output_may_lie_on_any_operand(no_fallback):
    def several(a, b):
        mask = a > 0
        mask.logical_and_(b > 0).logical_or_(a > 1)
        a = a.clone()
        a.addcmul_(a, b).lerp_(b, 0.5)
        torch.where(mask, a, b, out=b)
        torch.gt(a, b, out=a)
        return mask, a, b

    x, y = make(torch.float32, 4, 6), make(torch.float32, 4, 6, seed=1)
    same(several(x.to("xhal"), y.to("xhal")), several(x, y.clone()))


def test_an_overlapping_copy_is_refused():
    x = torch.arange(8.0, device="xhal")
    with pytest.raises(RuntimeError, match="single memory location"):
        x[1:].copy_(x[:-1])
