# SPDX-License-Identifier: Apache-2.0
"""Indexing, filling, casts and views against torch's CPU, however the tensors lie."""

import pytest
import torch
import torch.nn.functional as F

from compare import FLOATS, INTEGERS, check, layouts, make, same, to_device


def test_indexing(no_fallback):
    for dtype in (
        torch.float32,
        torch.bfloat16,
        torch.int64,
        torch.bool,
        torch.float64,
        torch.complex64,
    ):
        x = make(torch.float32, 6, 5, 4).to(dtype)
        i, j = torch.tensor([0, -1, 3]), torch.tensor([[1], [2]])
        for function in (
            lambda t: t[i.to(t.device)],
            lambda t: t[:, i.to(t.device)],
            lambda t: t[i.to(t.device), j.to(t.device)],
            lambda t: t[i.to(t.device), :, j[:, 0:1].to(t.device)],
            lambda t: t.index_select(1, torch.tensor([4, 0], device=t.device)),
            lambda t: torch.cat([t, t[:2]], 0),
            lambda t: torch.cat([t, t], -1),
            lambda t: torch.stack([t, t], 1),
            lambda t: t.flip(0, 2),
            lambda t: t.tril(-1),
            lambda t: t.triu(1),
            lambda t: t.gather(2, torch.tensor([[[0, 3], [1, 2]]], device=t.device)),
            lambda t: t.masked_select(torch.eye(5, 4, dtype=torch.bool, device=t.device)),
            lambda t: t[torch.tensor([1, 0, 1, 0, 1, 1], dtype=torch.bool, device=t.device)],
        ):
            check(function, x)
    check(torch.nonzero, make(torch.bool, 5, 6))
    check(torch.nonzero, make(torch.float32, 0, 6))


def test_index_writes(no_fallback):
    def put(t):
        t = t.clone()
        t[torch.tensor([0, 2], device=t.device)] = 1
        t[:, torch.tensor([1, 3], device=t.device)] = t[:, :2] * 2
        t[t > 1] = 0
        t[t < -1] = torch.tensor(-1, dtype=t.dtype, device=t.device)
        t.index_put_(
            (torch.tensor([1, 1], device=t.device),),
            torch.ones(2, t.shape[1], dtype=t.dtype, device=t.device),
            accumulate=True,
        )
        return t

    for dtype in (torch.float32, torch.bfloat16, torch.int64):
        x = make(dtype, 5, 4)
        check(put, x)
        index = torch.tensor([[0, 1, 2, 0], [3, 4, 0, 2]])
        check(lambda t: t.scatter(0, index.to(t.device), 7), x)
        check(lambda t: t.scatter(0, index.to(t.device), (t * 2)[:2]), x)
        check(lambda t: t.scatter_add(0, index.to(t.device), t), x, scale=2)
        check(
            lambda t: t.index_add(0, torch.tensor([1, 1, 3], device=t.device), t[:3], alpha=2),
            x,
            scale=2,
        )


def test_filling(no_fallback):
    for dtype in FLOATS + INTEGERS + [torch.bool, torch.float64]:
        same(torch.full((3, 4), 1, dtype=dtype, device="xhal"), torch.full((3, 4), 1, dtype=dtype))
        x = torch.zeros(4, 6, dtype=dtype, device="xhal")
        x[:, ::2].fill_(1)
        x.t()[1].zero_()
        y = torch.zeros(4, 6, dtype=dtype)
        y[:, ::2].fill_(1)
        y.t()[1].zero_()
        same(x, y)
    for arguments in [(7,), (2, 9), (1, 10, 3), (0.5, 3.0, 0.25), (9, 0, -2), (0,)]:
        same(torch.arange(*arguments, device="xhal"), torch.arange(*arguments))


CASTS = FLOATS + INTEGERS + [torch.bool, torch.float64]


@pytest.mark.parametrize("source", CASTS, ids=str)
def test_casts(source):
    for target in CASTS:
        for _, x in layouts(make(source, 4, 6, low=0)):
            same(to_device(x).to(target), x.to(target))
            same(x.to("xhal", target), x.to(target))
            assert torch.equal(to_device(x).cpu().to(target), x.to(target))


def test_views_share_memory():
    x = torch.arange(24.0).reshape(2, 3, 4)
    y = x.to("xhal")
    for view in (
        lambda t: t[0],
        lambda t: t[:, 1:, ::2],
        lambda t: t.permute(2, 0, 1),
        lambda t: t.view(6, 4),
        lambda t: t.unfold(2, 2, 1),
        lambda t: t.diagonal(0, 1, 2),
        lambda t: t.expand(2, 2, 3, 4),
        lambda t: t.unsqueeze(1).squeeze(0),
        lambda t: t.view(torch.int32),
        lambda t: t.chunk(2, 2)[1],
    ):
        same(view(y), view(x))
    y[0, 1, 2] = 100
    assert y.view(24)[6].item() == 100
    z = torch.view_as_complex(y.reshape(-1, 2))
    assert z.dtype == torch.complex64
    same(torch.view_as_real(z), y.reshape(-1, 2).cpu())


def test_lazily_conjugated_and_negated_views_are_copied_right(no_fallback):
    x = torch.complex(make(torch.float32, 3, 4), make(torch.float32, 3, 4, seed=1))
    y = x.to("xhal")
    assert torch.equal(y.conj().cpu(), x.conj())
    assert torch.equal(y.conj().resolve_conj().cpu(), x.conj())
    assert torch.equal(y.conj().imag.cpu(), x.conj().imag)
    assert torch.equal(torch._neg_view(y.real).cpu(), -x.real)
    assert torch.equal((torch._neg_view(y.real) + 1).cpu(), 1 - x.real)
    assert torch.equal(x.conj().to("xhal").cpu().resolve_conj(), x.conj().resolve_conj())
    target = torch.zeros(3, 4, dtype=torch.complex64, device="xhal")
    target.conj().copy_(y)
    assert torch.equal(target.cpu(), x.conj())


DEEP = (9, 0, 8, 1, 7, 2, 6, 3, 5, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.complex64], ids=str)
def test_more_than_eight_dimensions(dtype):
    x = torch.arange(2.0**10).reshape([2] * 10).to(dtype)
    y, z = x.to("xhal").permute(DEEP), x.permute(DEEP)
    same(y, z)
    same(y.contiguous(), z.contiguous())
    same(y + y.flip(0), z + z.flip(0))
    same(y.sum((0, 3)), z.sum((0, 3)))
    same(y.cpu().to("xhal"), z)
    other = torch.zeros_like(y)
    other[..., 1] = y[..., 0]
    expected = torch.zeros_like(z)
    expected[..., 1] = z[..., 0]
    same(other, expected)


def test_more_than_eight_dimensions_convert_while_copied(no_fallback):
    z = torch.arange(2.0**11).reshape([2] * 11).permute(10, *DEEP)
    same(z.to("xhal").to(torch.bfloat16), z.to(torch.bfloat16))
    same(z.to("xhal").half(), z.half())


def test_more_than_eight_dimensions_train_and_count_what_the_device_lacks():
    x = torch.linspace(-1, 1, 2**9).reshape([2] * 9)
    torch.xhal.reset_fallbacks()
    check(lambda t: t.permute(8, 0, 1, 2, 3, 4, 5, 6, 7).softmax(0), x, gradient=True)
    check(lambda t: (t * t).tanh().mean(8), x, gradient=True)
    assert all(name.startswith("aten::") for name in torch.xhal.fallbacks())
