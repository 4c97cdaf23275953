# SPDX-License-Identifier: Apache-2.0
"""Random operands: values, types, sizes and the ways in which they lie in memory."""

import math

import torch

FLOATS = [torch.float32, torch.bfloat16, torch.float16]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
NATIVE = FLOATS + INTEGERS + [torch.bool]
RARE = [torch.float64, torch.complex64]
SPECIAL = [0.0, -0.0, math.nan, math.inf, -math.inf, 1.0, -1.0]


class Lying:
    """A view of memory of its own, to be had on any device: what an operator wrote beside the view
    can be seen afterwards."""

    def __init__(self, base, size, stride, offset):
        self.base, self.size, self.stride, self.offset = base, size, stride, offset

    def on(self, device, made):
        """The view there; `made` keeps one copy of the memory for all its views."""
        if id(self) not in made:
            if id(self.base) not in made:
                made[id(self.base)] = self.base.clone() if device == "cpu" else self.base.to(device)
            base = made[id(self.base)]
            made[id(self)] = base.as_strided(self.size, self.stride, self.offset)
        return made[id(self)]

    def shifted(self, by):
        """A view of the same form that lies `by` elements further."""
        return Lying(self.base, self.size, self.stride, self.offset + by)

    def __repr__(self):
        kind = str(self.base.dtype).removeprefix("torch.")
        lies = "" if self.size == () else f" strides {tuple(self.stride)}"
        return f"{kind}{list(self.size)}{lies}" + (f" at {self.offset}" if self.offset else "")


def sizes(r, least=0, most=4):
    choices = [1, 2, 3, 5, 8, 17] if r.random() < 0.9 else [0, 1, 3]
    return tuple(r.choice(choices) for _ in range(r.randint(least, most)))


def broadcastable(r, size):
    """Sizes that can be expanded to `size`."""
    shorter = list(size[r.randint(0, len(size)) if r.random() < 0.3 else 0 :])
    for d in range(len(shorter)):
        if r.random() < 0.25:
            shorter[d] = 1
    return tuple(shorter)


def values(r, n, dtype, low=-3.0, high=3.0, special=0.15):
    generator = torch.Generator().manual_seed(r.getrandbits(62))
    if dtype == torch.bool:
        return torch.randint(0, 2, (n,), generator=generator).bool()
    if not (dtype.is_floating_point or dtype.is_complex):
        least = max(0 if dtype == torch.uint8 else math.floor(low) * 3, torch.iinfo(dtype).min)
        most = max(least + 1, math.ceil(high) * 3)
        made = torch.randint(least, most, (n,), generator=generator)
        return made.to(dtype)
    made = torch.rand(n, generator=generator, dtype=torch.float64) * (high - low) + low
    if n and r.random() < special:
        for _ in range(3):
            made[r.randrange(n)] = r.choice(SPECIAL)
    if dtype.is_complex:
        return torch.complex(made.float(), made.flip(0).float()).to(dtype)
    return made.to(dtype)


def dense(size):
    stride, step = [], 1
    for length in reversed(size):
        stride.append(step)
        step *= max(length, 1)
    return tuple(reversed(stride)), step if 0 not in size else 0


def lying(r, size, dtype, layout=None, **limits):
    """A tensor of these sizes that lies in one of many ways."""
    kinds = ["contiguous", "contiguous", "permuted", "sliced", "offset", "expanded"]
    layout = layout or r.choice(kinds + ["channels_last"] * 2 * (len(size) == 4))
    stride, count = dense(size)
    offset = 0
    if layout == "permuted" and len(size) > 1:
        order = r.sample(range(len(size)), len(size))
        inner, count = dense([size[d] for d in order])
        stride = tuple(inner[order.index(d)] for d in range(len(size)))
    elif layout == "channels_last" and len(size) == 4:
        n, c, h, w = size
        stride = (h * w * c, 1, w * c, c)
    elif layout == "sliced" and size:
        stride = (*[s * 2 for s in stride[:-1]], 2)
        count, offset = 2 * count, 1
    elif layout == "offset":
        offset = r.randint(1, 5)
    elif layout == "expanded" and size:
        kept = [length if r.random() < 0.5 else 1 for length in size]
        inner, count = dense(kept)
        stride = tuple(0 if k == 1 and s != 1 else i for k, s, i in zip(kept, size, inner))
    return Lying(values(r, count + offset + 5, dtype, **limits), size, stride, offset)
