# SPDX-License-Identifier: Apache-2.0
"""The same function on the CPU and on the device: values, gradients, types, shapes."""

import torch

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
TOLERANCE = {torch.float32: (2e-5, 2e-5), torch.bfloat16: (2e-2, 2e-2), torch.float16: (3e-3, 3e-3)}


def make(dtype, *shape, low=-2.0, high=2.0, seed=0):
    generator = torch.Generator().manual_seed(seed + sum(shape))
    if dtype == torch.bool:
        return torch.randint(2, shape, generator=generator).bool()
    if not dtype.is_floating_point:
        return torch.randint(0 if dtype == torch.uint8 else -9, 10, shape, generator=generator).to(
            dtype
        )
    return (torch.rand(shape, generator=generator) * (high - low) + low).to(dtype)


def layouts(tensor):
    """The same values, lying differently."""
    yield "contiguous", tensor
    if tensor.dim() >= 2:
        yield "transposed", tensor.transpose(0, 1).contiguous().transpose(0, 1)
        wide = torch.zeros(*tensor.shape[:-1], 2 * tensor.shape[-1], dtype=tensor.dtype)
        wide[..., ::2] = tensor
        yield "every other", wide[..., ::2]


def to_device(value):
    """Moves tensors as they lie: views stay views."""
    if isinstance(value, torch.Tensor):
        if value.is_contiguous() or not value.numel():
            return value.to("xhal")
        # the whole storage first, then the same view of it
        base = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
        return base.to("xhal").as_strided(value.size(), value.stride(), value.storage_offset())
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(v) for v in value)
    return value


def flat(value):
    return [value] if isinstance(value, torch.Tensor) else [t for v in value for t in flat(v)]


def same(actual, expected, dtype=torch.float32, scale=1.0):
    for a, e in zip(flat(actual), flat(expected), strict=True):
        assert a.dtype == e.dtype and a.shape == e.shape
        rtol, atol = TOLERANCE.get(e.dtype if e.dtype in TOLERANCE else dtype, (0, 0))
        if not (e.dtype.is_floating_point or e.dtype.is_complex):
            rtol = atol = 0
        torch.testing.assert_close(a.cpu(), e, rtol=rtol * scale, atol=atol * scale, equal_nan=True)


def check(function, *arguments, gradient=False, scale=1.0):
    """function(*arguments) on both devices, and the gradients of its floating arguments."""
    here = [
        (
            a.detach().clone().requires_grad_()
            if gradient
            and isinstance(a, torch.Tensor)
            and a.is_floating_point()
            and a.is_contiguous()
            else a
        )
        for a in arguments
    ]
    there = [
        (
            to_device(a.detach()).requires_grad_(a.requires_grad)
            if isinstance(a, torch.Tensor)
            else to_device(a)
        )
        for a in here
    ]
    expected, actual = function(*here), function(*there)
    same(actual, expected, scale=scale)
    if not gradient:
        return
    outputs = [(a, e) for a, e in zip(flat(actual), flat(expected)) if e.requires_grad]
    weights = [make(torch.float32, *e.shape, seed=5).to(e.dtype) for _, e in outputs]
    torch.autograd.backward([e for _, e in outputs], weights)
    torch.autograd.backward([a for a, _ in outputs], [w.to("xhal") for w in weights])
    for a, e in zip(there, here):
        if isinstance(e, torch.Tensor) and e.grad is not None:
            same(a.grad, e.grad, scale=4 * scale)
