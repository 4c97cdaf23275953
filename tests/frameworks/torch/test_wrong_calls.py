# SPDX-License-Identifier: Apache-2.0
"""Calls that are wrong on every device: the user gets torch's own error, and it is no fallback."""

import pytest
import torch
import torch.nn.functional as F


def ones(device, *shape, dtype=torch.float32):
    return torch.ones(*shape, dtype=dtype, device=device)


# The kernels of the device leave these to the host, where torch finds the mistake.
WRONG = {
    "mm, shapes": lambda d: ones(d, 3, 4) @ ones(d, 3, 4),
    "mm, types": lambda d: ones(d, 3, 4) @ ones(d, 4, 3).half(),
    "linear, types": lambda d: F.linear(ones(d, 3, 4).half(), ones(d, 5, 4)),
    "layer_norm, shape": lambda d: F.layer_norm(ones(d, 3, 4), (5,)),
    "softmax of integers": lambda d: torch.softmax(ones(d, 3, dtype=torch.int64), 0),
    "mean of integers": lambda d: ones(d, 2, dtype=torch.int64).mean(),
    "max of nothing": lambda d: torch.empty(0, device=d).max(),
    "bmm, batches": lambda d: torch.bmm(ones(d, 2, 3, 4), ones(d, 3, 4, 3)),
    "no kernel at all, shape": lambda d: torch.linalg.inv(ones(d, 2, 3)),
}


def first_line(error):
    return str(error).split("\nException raised")[0].splitlines()[0]


def error_of(call, device):
    with pytest.raises(Exception) as raised:  # noqa: PT011 - the CPU says which
        call(device)
    return raised.value


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_gets_torchs_error_and_is_no_fallback(case, capfd):
    expected, actual = error_of(WRONG[case], "cpu"), error_of(WRONG[case], "xhal")
    assert type(actual) is type(expected)
    assert first_line(actual) == first_line(expected)
    assert torch.xhal.fallbacks() == {}
    assert "runs on the host" not in capfd.readouterr().err


FORBIDDEN = """
import torch
x = torch.ones(3, 4, device="xhal")
y = torch.ones(3, 3, dtype=torch.float64, device="xhal")
for call in (lambda: x @ x, lambda: torch.conv2d(x[None, None], torch.ones(1, 2, 1, 1).to("xhal")),
             lambda: y.normal_(), lambda: y.sum(), lambda: x.sum(dtype=torch.float64),
             lambda: torch.linalg.eigh(y.float())):
    try:
        call()
    except Exception as error:
        print(str(error).splitlines()[0])
print(y.tolist() == [[1.0] * 3] * 3)
"""


def test_where_fallbacks_are_forbidden_wrong_calls_are_still_told_from_missing_kernels(python):
    result = python("-c", FORBIDDEN, XHAL_FALLBACK="error")
    assert result.returncode == 0, result.stderr
    shape, channels, *forbidden, untouched = result.stdout.splitlines()
    assert "cannot be multiplied (3x4 and 3x4)" in shape
    assert "expected input" in channels and "to have 2 channels" in channels
    assert forbidden == [
        "aten::normal_ would run on the host: Double is computed on the host",
        "aten::sum would run on the host: Double is computed on the host",
        "aten::sum would run on the host: Double is computed on the host",
        "aten::_linalg_eigh.eigenvalues would run on the host: no kernel for it",
    ]
    assert untouched == "True"


# ---- random generators


DRAWS = {
    "rand": lambda d, g: torch.rand(3, device=d, generator=g),
    "randn of f64": lambda d, g: torch.randn(3, device=d, generator=g, dtype=torch.float64),
    "randperm": lambda d, g: torch.randperm(3, device=d, generator=g),
    "bernoulli_": lambda d, g: torch.ones(3, device=d).bernoulli_(0.5, generator=g),
    "exponential_": lambda d, g: torch.ones(3, device=d).exponential_(generator=g),
    "geometric_": lambda d, g: torch.ones(3, device=d).geometric_(0.5, generator=g),
}


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("device", "other"), [("cpu", "xhal"), ("xhal", "cpu")])
def test_a_generator_of_another_device_is_refused_in_torchs_words(draw, device, other):
    text = f"Expected a '{device}' device type for generator but found '{other}'"
    with pytest.raises(RuntimeError, match=text):
        DRAWS[draw](device, torch.Generator(other))


def test_a_state_that_is_refused_leaves_the_generator_as_it_was():
    generator = torch.Generator("xhal").manual_seed(5)
    before = generator.get_state()
    wrong = before.clone()
    wrong[0], wrong[8] = 77, 3  # another seed, and an offset that is no multiple of 4
    with pytest.raises(RuntimeError, match="multiple of 4"):
        generator.set_state(wrong)
    assert torch.equal(generator.get_state(), before) and generator.initial_seed() == 5


SPREADS = {
    "of one mean": lambda std: torch.normal(0.0, std),
    "of as many means": lambda std: torch.normal(torch.zeros_like(std), std),
    "broadcast": lambda std: torch.normal(torch.zeros(3, 2, device=std.device), std),
}


@pytest.mark.parametrize("case", SPREADS)
@pytest.mark.parametrize("wrong", [-1.0, float("nan")])
def test_a_negative_spread_is_refused(case, wrong):
    with pytest.raises(RuntimeError, match="normal expects all elements of std >= 0.0"):
        SPREADS[case](torch.tensor([wrong, 1.0], device="xhal"))


# ---- operands of two devices: who it is


NAMED = {
    "mm": (lambda x, y: x @ y, "argument mat2 in method aten::mm"),
    "mm out": (lambda x, y: torch.mm(x, x, out=y), "argument out in method gemm"),
    "add": (lambda x, y: x + y, "argument other in method aten::add"),
    "linear": (lambda x, y: F.linear(x, y), "in method"),
    "layer_norm": (lambda x, y: F.layer_norm(x, (2,), y[0]), "weight in method layer_norm"),
    "conv2d": (lambda x, y: F.conv2d(x[None, None], y[None, None]), "weight in method"),
    "equal": (lambda x, y: torch.equal(x, y), "argument other in method equal"),
    "equal, the first": (lambda x, y: torch.equal(y, x), "argument other in method equal"),
}


@pytest.mark.parametrize("case", NAMED)
def test_an_operand_on_another_device_is_named(case):
    call, named = NAMED[case]
    with pytest.raises(RuntimeError, match="found at least two devices") as refusal:
        call(ones("xhal", 2, 2), ones("cpu", 2, 2))
    assert named in first_line(refusal.value)
    assert torch.xhal.fallbacks() == {}


def test_equal_compares_tensors_of_two_types_as_the_cpu_does():
    x = torch.arange(3.0)
    for other in (x.half(), x.half() + 1, x.long()):
        assert torch.equal(x.to("xhal"), other.to("xhal")) == torch.equal(x, other)
