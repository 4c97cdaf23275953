# SPDX-License-Identifier: Apache-2.0
"""f64 on the device: elementwise arithmetic and casts run there, with f64's own precision."""

import pytest
import torch

SCALER = """
import torch
torch.manual_seed(0)
model = torch.nn.Linear(16, 4, device="xhal")
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("xhal", init_scale=1024.0, growth_interval=1)
for step in range(3):
    optimizer.zero_grad()
    with torch.autocast("xhal", dtype=torch.float16):
        loss = model(torch.ones(8, 16, device="xhal")).square().mean()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
print("scale", scaler.get_scale())
"""


def test_the_step_of_a_gradient_scaler_in_fp16_has_no_fallback(python):
    # unscale_ takes the reciprocal of the scale in f64.
    result = python("-c", SCALER, XHAL_FALLBACK="error")
    assert result.returncode == 0, result.stderr
    assert "scale 8192.0" in result.stdout


ONE = [torch.neg, torch.abs, torch.sign, torch.sqrt, torch.rsqrt, torch.reciprocal, torch.floor,
       torch.ceil, torch.trunc, torch.round, torch.isnan, torch.isfinite,
       torch.logical_not]  # fmt: skip
TWO = [torch.add, torch.sub, torch.mul, torch.div, torch.fmod, torch.remainder, torch.minimum,
       torch.maximum, torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge,
       torch.floor_divide]  # fmt: skip


def values():
    return torch.tensor(
        [0.1, -2.5, 3.0, 0.0, float("inf"), -float("inf"), float("nan"), 1 + 2**-52, 7.25, 1e-300],
        dtype=torch.float64,
    )


def same(got, wanted):
    assert got.dtype == wanted.dtype
    assert torch.equal(torch.nan_to_num(got.cpu(), 4711.0), torch.nan_to_num(wanted, 4711.0))


@pytest.mark.parametrize("function", ONE, ids=lambda f: f.__name__)
def test_functions_of_one_f64_tensor_give_the_bits_of_the_cpu(function, no_fallback):
    same(function(values().to("xhal")), function(values()))


@pytest.mark.parametrize("function", TWO, ids=lambda f: f.__name__)
def test_functions_of_two_f64_tensors_give_the_bits_of_the_cpu(function, no_fallback):
    other = values().flip(0)
    same(function(values().to("xhal"), other.to("xhal")), function(values(), other))
    if function not in (torch.minimum, torch.maximum):  # these take no numbers
        same(function(values().to("xhal"), 0.1), function(values(), 0.1))


def test_f64_meets_other_dtypes_as_torch_promotes_them(no_fallback):
    x = values()
    for dtype in (torch.float32, torch.int64, torch.float16):
        y = torch.arange(10, dtype=dtype)
        same(x.to("xhal") + y.to("xhal"), x + y)
        same(y.to("xhal") * x.to("xhal"), y * x)
    strided = torch.arange(24, dtype=torch.float64).view(4, 6)
    same(strided.to("xhal").t()[1:] * 0.1, strided.t()[1:] * 0.1)


def test_where_clamp_and_masked_fill_keep_f64(no_fallback):
    x = values()
    there, mask = x.to("xhal"), (x > 1).to("xhal")
    same(torch.where(mask, there, 0.1), torch.where(x > 1, x, 0.1))
    same(there.clamp(-0.1, 0.3), x.clamp(-0.1, 0.3))
    same(there.masked_fill(mask, 0.1), x.masked_fill(x > 1, 0.1))


def test_casts_to_and_from_f64_stay_on_the_device(no_fallback):
    x = torch.tensor([0.1, -2.75, 3.5, 100.0])
    for dtype in (torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool, torch.int8):
        there = x.to(dtype).to("xhal").double()
        same(there, x.to(dtype).double())
        same(there.to(dtype), x.to(dtype))
