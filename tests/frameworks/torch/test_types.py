# SPDX-License-Identifier: Apache-2.0
"""The type, the strides and the format of results against torch's CPU; what nobody has written."""

import pytest
import torch
import torch.nn.functional as F

from compare import same, to_device

nan, inf = float("nan"), float("inf")
TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int8,
         torch.uint8, torch.bool]  # fmt: skip


def numbers(dtype):
    if dtype == torch.bool:
        return torch.tensor([True, False, True, True, False, True, False])
    if dtype == torch.uint8:
        return torch.tensor([0, 1, 2, 7, 255, 200, 3], dtype=dtype)
    if dtype.is_floating_point:
        return torch.tensor([0.0, -0.0, 1.5, -2.5, nan, inf, 70000.0]).to(dtype)
    return torch.tensor([0, 1, -1, 7, -8, 100, 3], dtype=dtype)


def both(action, *arguments):
    """Both compute and agree, or both refuse."""
    there = [to_device(a) for a in arguments]
    try:
        expected, refused = action(*arguments), None
    except Exception as error:  # noqa: BLE001 - that there is one is compared
        expected, refused = None, error
    try:
        actual, error = action(*there), None
    except Exception as problem:  # noqa: BLE001
        actual, error = None, problem
    assert (refused is None) == (error is None), (refused, error)
    if refused is None:
        same(actual, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("second", TYPES, ids=str)
@pytest.mark.parametrize("first", TYPES, ids=str)
@pytest.mark.parametrize("name", ["fmax", "fmin", "xlogy", "sub", "rsub", "add", "mul", "maximum"])
def test_two_types_give_the_cpus_type(name, first, second):
    x, y = numbers(first), numbers(second).flip(0)
    function = getattr(torch, name)
    both(function, x, y)
    both(function, x[3], y)
    both(lambda a, b: function(a, b[3]), x, y)
    if hasattr(torch.Tensor, name + "_"):
        both(lambda a, b: getattr(a.clone(), name + "_")(b), x, y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", TYPES, ids=str)
@pytest.mark.parametrize("number", [2, -3, 2.5, True, 0.5])
@pytest.mark.parametrize("name", ["pow", "sub", "rsub", "xlogy", "mul", "clamp_min"])
def test_a_number_promotes_as_on_the_cpu(name, number, first):
    both(lambda x: getattr(torch, name)(x, number), numbers(first))


def test_the_square_of_bools_counts():
    mask = torch.tensor([True, False], device="xhal")
    assert (mask**2).dtype == mask.square().dtype == torch.int64


# ---- memory formats ------------------------------------------------------------------------------

CHANNELS_LAST = torch.channels_last
X = torch.randn(2, 8, 6, 6).to(memory_format=CHANNELS_LAST)
W = torch.randn(8, 8, 3, 3)
T = torch.randn(6, 5).t()


def gradient(function, index=0):
    def run(*arguments):
        leaves = [a.clone(memory_format=torch.preserve_format).requires_grad_() for a in arguments]
        return torch.autograd.grad(function(*leaves).sum(), leaves)[index]

    return run


FORMATS = {
    "conv2d": (F.conv2d, X, W),
    "conv2d, the weight": (F.conv2d, X.contiguous(), W.to(memory_format=CHANNELS_LAST)),
    "conv_transpose2d": (F.conv_transpose2d, X, W),
    "conv2d, gradient of the input": (gradient(F.conv2d), X, W),
    "conv2d, gradient of the weight": (gradient(F.conv2d, 1), X, W),
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), X),
    "group_norm": (lambda x: F.group_norm(x, 2), X),
    "group_norm, gradient": (gradient(lambda x: F.group_norm(x, 2).pow(2)), X),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), X),
    "max_pool2d, gradient": (gradient(lambda x: F.max_pool2d(x, 2)), X),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2), X),
    "adaptive_avg_pool2d": (lambda x: F.adaptive_avg_pool2d(x, 2), X),
    "adaptive_avg_pool2d, gradient": (gradient(lambda x: F.adaptive_avg_pool2d(x, 2)), X),
    "interpolate nearest": (lambda x: F.interpolate(x, scale_factor=2), X),
    "interpolate bilinear": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), X),
    "dropout": (lambda x: F.dropout(x, 0.5), X),
    "flip": (lambda x: x.flip(2), X),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), X),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), X),
    "relu": (F.relu, X),
    "elu": (F.elu, X),
    "where": (lambda x: torch.where(x > 0, x, x), X),
    "softmax": (lambda x: x.softmax(1), X),
    "sum": (lambda x: x.sum(1, keepdim=True), X),
    "tril": (torch.tril, T),
    "cumsum": (lambda x: x.cumsum(1), X),
    "sort": (lambda x: x.sort(1).values, X),
    "cat": (lambda x: torch.cat([x, x], 1), X),
    "roll": (lambda x: x.roll(1, 2), X),
}


@pytest.mark.parametrize("case", FORMATS)
def test_results_lie_as_on_the_cpu(case):
    function, *arguments = FORMATS[case]
    expected = function(*arguments)
    actual = function(*[to_device(a) for a in arguments])
    assert actual.stride() == expected.stride()
    if case != "dropout":
        same(actual, expected, scale=10)


# ---- determinism ---------------------------------------------------------------------------------


def test_memory_nobody_has_written_is_filled_when_determinism_is_asked_for():
    torch.use_deterministic_algorithms(True)
    try:
        for device in ("cpu", "xhal"):
            made = [
                torch.empty(4, device=device),
                torch.empty_strided((2, 3), (1, 2), device=device),
                torch.empty(3, dtype=torch.float16, device=device),
            ]
            assert all(bool(t.isnan().all()) for t in made), device
            assert torch.empty(2, dtype=torch.int32, device=device).tolist() == [2**31 - 1] * 2
            grown = torch.ones(1, device=device).resize_(5)
            assert grown[0] == 1 and bool(grown[1:].isnan().all()), device
    finally:
        torch.use_deterministic_algorithms(False)


# ---- integers, and gradients of a sum ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8])
def test_integers_are_counted_in_bins(dtype, no_fallback):
    x = torch.randint(0, 20, (100,), dtype=dtype)
    for bins, low, high in ((10, 0, 0), (4, 0, 16), (7, 3, 10), (1, 5, 5), (100, 0, 19)):
        expected = torch.histc(x.double(), bins, low, high)
        actual = torch.histc(x.to("xhal"), bins, low, high)
        assert actual.dtype == dtype
        assert actual.cpu().double().tolist() == expected.tolist(), (bins, low, high)
    with pytest.raises(RuntimeError, match="max must be larger than min"):
        torch.histc(x.to("xhal"), 4, 5, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("side", [3, 4, 6])
def test_the_gradient_of_a_summed_convolution_is_right_however_small(side, dtype):
    x, w = torch.randn(1, 2, side, side), torch.randn(2, 2, 3, 3)
    there = [t.to("xhal", dtype).requires_grad_() for t in (x, w)]
    here = [t.detach().cpu().double().requires_grad_() for t in there]
    # The gradient that comes in is one number, expanded.
    F.conv2d(*there).sum().backward()
    F.conv2d(*here).sum().backward()
    for a, e in zip(there, here):
        torch.testing.assert_close(a.grad.cpu().double(), e.grad, rtol=2e-2, atol=2e-2)


# ---- an output of another float


LARGE = [300.0, 1000.0, 2049.0, 0.1]
POINTWISE_OUT = {
    "mul": lambda x, out: torch.mul(x, x, out=out),
    "add": lambda x, out: torch.add(x, x, alpha=200, out=out),
    "pow": lambda x, out: torch.pow(x, 2, out=out),
    "exp": lambda x, out: torch.exp(x, out=out),
    "div": lambda x, out: torch.div(x, 3, out=out),
    "addcmul": lambda x, out: torch.addcmul(x, x, x, out=out),
    "lerp": lambda x, out: torch.lerp(x, -x, 0.3, out=out),
    "sigmoid": lambda x, out: torch.sigmoid(x, out=out),
    "sqrt": lambda x, out: torch.sqrt(x, out=out),
    "maximum": lambda x, out: torch.maximum(x, x * 1.5, out=out),
    "log10": lambda x, out: torch.log10(x, out=out),
    "logaddexp": lambda x, out: torch.logaddexp(x, x, out=out),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("wide", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("name", POINTWISE_OUT)
def test_a_result_is_a_number_of_the_operands_type_before_it_is_one_of_the_outputs(
    name, dtype, wide
):
    for place in (lambda t: t, lambda t: t.expand(3, 4).t()):
        x = place(torch.tensor(LARGE).to(dtype).to("xhal"))
        out = torch.zeros(x.shape, dtype=wide, device="xhal")
        POINTWISE_OUT[name](x, out)
        first = torch.zeros(x.shape, dtype=dtype, device="xhal")
        POINTWISE_OUT[name](x, first)
        assert torch.equal(out.cpu(), first.to(wide).cpu())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_a_number_is_rounded_to_a_short_type_where_a_little_matters(dtype):
    x = torch.tensor([1, 7.3, -2.5, 0.1, 0.3], dtype=dtype)
    for number in (0.1, 0.3, -0.7):
        for function in (torch.remainder, torch.fmod, torch.eq, torch.ne, torch.lt, torch.ge):
            wanted = function(x, number)
            assert torch.equal(function(x.to("xhal"), number).cpu(), wanted), function.__name__
        assert torch.equal(torch.remainder(number, x.to("xhal")).cpu(), torch.remainder(number, x))


def test_a_product_that_f16_cannot_hold_is_infinite_in_a_wider_output(no_fallback):
    x = torch.tensor([300.0, 2.0], dtype=torch.float16, device="xhal")
    assert torch.mul(x, x, out=torch.zeros(2, device="xhal")).tolist() == [float("inf"), 4.0]
