# SPDX-License-Identifier: Apache-2.0
"""Reductions, products, indices, forms and layers: the rest of the operators that are swept."""

import torch
import torch.nn.functional as F
from operators import Call, any_type, forms_of, in_place_of, operator
from tensors import FLOATS, INTEGERS, NATIVE, Lying, lying, sizes

# ---- reductions ----------------------------------------------------------------------------------


def some_dim(r, size):
    return r.randrange(-len(size), len(size)) if size else 0


REDUCTIONS = """sum mean prod amax amin any all var std logsumexp nansum count_nonzero cumsum
argmax argmin norm""".split()
for _name in REDUCTIONS:

    @operator(_name)
    def _reduction(r, name=_name):
        x = lying(r, sizes(r), any_type(r), low=-1.5, high=1.5)
        function, options = getattr(torch, name), {}
        if name == "norm":
            function = torch.linalg.vector_norm
        if r.random() < 0.7 or name in ("cumsum", "logsumexp", "nansum"):
            options["dim"] = some_dim(r, x.size)
            if name not in ("cumsum", "count_nonzero"):
                options["keepdim"] = r.random() < 0.5
        elif name in ("amax", "amin"):
            options = {}
        if name in ("sum", "mean", "prod", "cumsum", "nansum") and r.random() < 0.3:
            options["dtype"] = r.choice([torch.float32, torch.int64, torch.bfloat16])
        forms = ("functional",) if name in ("count_nonzero",) else ("functional", "out")
        if not options and name not in ("amax", "amin"):
            forms = ("functional",)
        if name == "cumsum":
            forms = ("functional", "out", "in place")
        return Call(function, [x], (), options, forms, in_place_of(name), tolerance=4)


@operator("softmax")
def _softmax(r):
    x = lying(r, sizes(r, 1), any_type(r))
    name = r.choice(["softmax", "log_softmax"])
    options = {"dtype": torch.float32} if r.random() < 0.2 else {}
    return Call(getattr(torch, name), [x], (some_dim(r, x.size),), options, tolerance=2)


@operator("sort and topk")
def _sort(r):
    x = lying(r, sizes(r, 1), r.choice(NATIVE), special=0)
    dim, descending = some_dim(r, x.size), r.random() < 0.5
    if r.random() < 0.5:
        return Call(lambda x: torch.sort(x, dim=dim, descending=descending, stable=True), [x])
    k = r.randint(0, x.size[dim])
    return Call(lambda x: torch.topk(x, k, dim).values, [x])


@operator("max and min along a dimension")
def _extreme(r):
    x = lying(r, sizes(r), any_type(r), special=0)
    function, dim, keep = r.choice([torch.max, torch.min]), some_dim(r, x.size), r.random() < 0.5
    return Call(lambda x: function(x, dim, keep).values, [x])


# ---- products ------------------------------------------------------------------------------------


@operator("products")
def _products(r):
    n, k, m, b = (r.choice([0, 1, 2, 3, 8, 17]) if r.random() < 0.1 else r.choice([1, 2, 5, 16, 33])
                  for _ in "nkmb")  # fmt: skip
    dtype = r.choice(FLOATS + [torch.int64, torch.float64])
    other = dtype if r.random() < 0.9 else any_type(r)
    name = r.choice(["mm", "bmm", "mv", "dot", "addmm", "baddbmm", "addmv", "matmul"])
    limits = {"low": -1, "high": 1, "special": 0}

    def made(*size, t=dtype):
        return lying(r, size, t, **limits)

    scale = {"beta": r.choice([0, 1, 2]), "alpha": r.choice([1, 3])} if r.random() < 0.5 else {}
    operands = {
        "mm": lambda: [made(n, k), made(k, m, t=other)],
        "bmm": lambda: [made(b, n, k), made(b, k, m, t=other)],
        "mv": lambda: [made(n, k), made(k, t=other)],
        "dot": lambda: [made(k), made(k, t=other)],
        "addmm": lambda: [made(*r.choice([(n, m), (m,), (1, m), (n, 1), ()])), made(n, k),
                          made(k, m, t=other)],
        "baddbmm": lambda: [made(*r.choice([(b, n, m), (n, m), (1, 1, m)])), made(b, n, k),
                            made(b, k, m, t=other)],
        "addmv": lambda: [made(n), made(n, k), made(k, t=other)],
        "matmul": lambda: [made(b, n, k), made(k, m, t=other)],
    }[name]()  # fmt: skip
    options = scale if name.startswith(("add", "badd")) else {}
    return Call(getattr(torch, name), operands, (), options, forms_of(name), in_place_of(name),
                tolerance=10)  # fmt: skip


# ---- indices -------------------------------------------------------------------------------------


def rows(r, count, within, dtype=torch.int64, negative=False):
    low = -within if negative else 0
    made = torch.tensor([r.randrange(low, within) for _ in range(count)], dtype=dtype)
    if count and r.random() < 0.03:
        made[r.randrange(count)] = r.choice([within, -within - 1, 10_000])
    return Lying(made, (count,), (1,), 0)


def source_of(r, x, dim, count, dtype=None):
    size = list(x.size)
    size[dim] = count
    return lying(r, tuple(size), dtype or x.base.dtype)


def filled_sizes(r, least=1):
    return tuple(max(1, s) for s in sizes(r, least, 3))


@operator("rows by index")
def _rows(r):
    x = lying(r, filled_sizes(r), any_type(r))
    dim = some_dim(r, x.size)
    count = r.randint(0, 5)
    name = r.choice(["index_select", "index_add", "index_copy", "index_fill"])
    at = rows(r, count, x.size[dim], r.choice([torch.int64, torch.int64, torch.int32]))
    if name == "index_copy":  # which of two writes to one row wins is not promised
        count = r.randint(0, x.size[dim])
        at.base = torch.tensor(r.sample(range(x.size[dim]), count), dtype=torch.int64)
        at.size = (count,)
    forms = tuple(f for f in forms_of(name) if f != "out" or name == "index_select")
    if name == "index_select":
        return Call(lambda x, i: torch.index_select(x, dim, i), [x, at])
    if name == "index_fill":
        return Call(lambda x, i: x.index_fill(dim, i, 3), [x, at], (), {}, forms,
                    lambda x, i: x.index_fill_(dim, i, 3))  # fmt: skip
    source = source_of(r, x, dim, count, None if r.random() < 0.9 else any_type(r))
    return Call(lambda x, i, s: getattr(x, name)(dim, i, s), [x, at, source], (), {}, forms,
                lambda x, i, s: getattr(x, name + "_")(dim, i, s), tolerance=4)  # fmt: skip


@operator("elements by index")
def _elements(r):
    size = filled_sizes(r)
    x = lying(r, size, any_type(r))
    dim = some_dim(r, size)
    name = r.choice(["gather", "scatter_add", "scatter", "take"])
    numel = torch.Size(size).numel()
    if name == "take":
        at = rows(r, r.randint(0, 6), numel, negative=True)
        return Call(torch.take, [x, at])
    if name == "scatter":  # each place at most once
        order = torch.argsort(torch.rand(size), dim)
        index = Lying(order.reshape(-1), size, torch.empty(size).stride(), 0)
    else:
        flat = rows(r, numel, size[dim])
        index = Lying(flat.base, size, torch.empty(size).stride(), 0)
    if name == "gather":
        return Call(lambda x, i: torch.gather(x, dim, i), [x, index])
    source = lying(r, size, x.base.dtype if r.random() < 0.9 else any_type(r))
    return Call(lambda x, i, s: getattr(x, name)(dim, i, s), [x, index, source], (), {},
                ("functional", "in place"), lambda x, i, s: getattr(x, name + "_")(dim, i, s),
                tolerance=4)  # fmt: skip


@operator("advanced indexing")
def _advanced(r):
    size = filled_sizes(r)
    x = lying(r, size, any_type(r))
    count = r.randint(0, 4)
    at = rows(r, count, size[0], negative=True)
    if r.random() < 0.3:
        mask = lying(r, size[:1], torch.bool, layout="contiguous")
        return Call(lambda x, m: x[m], [x, mask])
    if r.random() < 0.5:
        return Call(lambda x, i: x[i], [x, at])
    at.base = torch.tensor(r.sample(range(size[0]), min(count, size[0])), dtype=torch.int64)
    at.size = tuple(at.base.shape)
    value = lying(r, (*at.size, *size[1:]), x.base.dtype if r.random() < 0.9 else any_type(r))
    add = r.random() < 0.3

    def put(x, i, v):
        return x.index_put_((i,), v, accumulate=add)

    return Call(lambda x, i, v: put(x.clone(), i, v), [x, at, value], (), {},
                ("functional", "in place"), put)  # fmt: skip


@operator("masks")
def _masks(r):
    x = lying(r, filled_sizes(r), any_type(r))
    mask = lying(r, x.size, torch.bool)
    which = r.choice(["masked_select", "nonzero", "masked_scatter"])
    if which == "nonzero":
        return Call(torch.nonzero, [x])
    if which == "masked_select":
        return Call(torch.masked_select, [x, mask])
    source = lying(r, x.size, x.base.dtype)
    return Call(torch.masked_scatter, [x, mask, source])


# ---- forms ---------------------------------------------------------------------------------------


@operator("cat and stack")
def _cat(r):
    size, dtype = sizes(r, 1), any_type(r)
    parts = [lying(r, size, dtype if r.random() < 0.8 else any_type(r)) for _ in range(3)]
    dim, join = some_dim(r, size), r.choice([torch.cat, torch.stack])
    out = r.random() < 0.3

    def into(*parts):
        made = torch.empty(0, dtype=torch.float32, device=parts[0].device)
        return torch.cat(parts, dim, out=made)

    if out:
        return Call(into, parts)
    return Call(lambda *p: join(p, dim), parts, strides=join is torch.cat)


@operator("rearranging")
def _rearranging(r):
    x = lying(r, sizes(r, 2), any_type(r))
    dim, by = some_dim(r, x.size), r.randint(-3, 3)
    function = r.choice([
        lambda x: x.flip(dim), lambda x: x.roll(by, dim), lambda x: x.tril(by),
        lambda x: x.triu(by), lambda x: x.clone(), lambda x: x.contiguous(),
        lambda x: x.repeat(2, *[1] * (x.dim() - 1)), lambda x: x.reshape(-1),
        lambda x: torch.zeros_like(x), lambda x: x.transpose(0, -1).reshape(x.shape),
        lambda x: x.unfold(0, 1, 1).clone(), lambda x: x.diagonal().clone(),
    ])  # fmt: skip
    return Call(function, [x], strides=True)


@operator("fill")
def _fill(r):
    x = lying(r, sizes(r), any_type(r))
    number = r.choice([0, 1, 2.5, -1, True])
    return Call(lambda x: torch.full_like(x, number), [x], (), {}, ("functional", "in place"),
                lambda x: x.fill_(number))  # fmt: skip


# ---- layers --------------------------------------------------------------------------------------


def image(r, channels, dtype):
    return lying(r, (r.randint(1, 3), channels, r.randint(3, 9), r.randint(3, 9)), dtype,
                 low=-1, high=1, special=0)  # fmt: skip


@operator("convolution")
def _convolution(r):
    dtype = r.choice(FLOATS + [torch.float64])
    groups = r.choice([1, 1, 2])
    x = image(r, 4, dtype)
    out = r.choice([2, 6])
    size = (out, 4 // groups, r.randint(1, 3), r.randint(1, 3))
    layout = r.choice(["contiguous", "channels_last", "permuted"])
    weight = lying(r, size, dtype, low=-1, high=1, special=0, layout=layout)
    options = {"stride": r.randint(1, 2), "padding": r.randint(0, 2), "groups": groups}
    return Call(F.conv2d, [x, weight], (), options, strides=dtype == torch.float32, tolerance=20)


@operator("pooling and resampling")
def _pooling(r):
    x = image(r, 3, r.choice(FLOATS + [torch.float64]))
    k, s, p, ceil = r.randint(1, 3), r.randint(1, 3), r.randint(0, 1), r.random() < 0.5
    p = min(p, k // 2)
    function = r.choice([
        lambda x: F.max_pool2d(x, k, s, p, ceil_mode=ceil),
        lambda x: F.avg_pool2d(x, k, s, p, ceil),
        lambda x: F.adaptive_avg_pool2d(x, k),
        lambda x: F.interpolate(x, scale_factor=2),
        lambda x: F.interpolate(x, size=(k + 2, s + 3), mode="bilinear", align_corners=ceil),
        lambda x: F.pixel_unshuffle(x[:, :, :2, :2], 2),
    ])  # fmt: skip
    return Call(function, [x], strides=True, tolerance=4)


@operator("normalisation")
def _normalisation(r):
    dtype = r.choice(FLOATS)
    x = image(r, 4, dtype)
    weight = lying(r, (4,), dtype, low=0.5, high=1.5, special=0)
    last = lying(r, (x.size[-1],), dtype, low=0.5, high=1.5, special=0)
    which = r.randrange(4)
    if which == 0:
        return Call(lambda x, w: F.layer_norm(x, x.shape[-1:], w), [x, last], tolerance=10)
    if which == 1:
        return Call(lambda x, w: F.group_norm(x, 2, w), [x, weight], strides=True, tolerance=10)
    if which == 2:
        return Call(lambda x, w: F.batch_norm(x, None, None, w, training=True), [x, weight],
                    strides=True, tolerance=10)  # fmt: skip
    return Call(lambda x, w: F.rms_norm(x, x.shape[-1:], w), [x, last], tolerance=10)


@operator("losses")
def _losses(r):
    dtype = r.choice(FLOATS)
    n, c = r.randint(1, 6), r.randint(1, 9)
    x = lying(r, (n, c), dtype, special=0)
    y = lying(r, (n, c), dtype if r.random() < 0.85 else r.choice(FLOATS), special=0)
    reduction = r.choice(["mean", "sum", "none"])
    if r.random() < 0.4:
        target = rows(r, n, c)
        return Call(F.cross_entropy, [x, target], (), {"reduction": reduction}, tolerance=8)
    loss = r.choice([F.mse_loss, F.smooth_l1_loss, F.huber_loss, F.l1_loss])
    return Call(loss, [x, y], (), {"reduction": reduction}, tolerance=8)


@operator("attention")
def _attention(r):
    dtype, d = r.choice(FLOATS), r.choice([1, 4, 16])
    heads, fewer = r.choice([(2, 2), (4, 2), (2, 1)])
    b, s, t = r.randint(1, 2), r.randint(1, 6), r.randint(1, 9)
    limits = {"low": -1, "high": 1, "special": 0}
    q = lying(r, (b, heads, s, d), dtype, **limits)
    k, v = lying(r, (b, fewer, t, d), dtype, **limits), lying(r, (b, fewer, t, d), dtype, **limits)
    options = {"scale": r.choice([None, 0.0, 0.5]), "is_causal": r.random() < 0.3,
               "enable_gqa": r.random() < 0.5}  # fmt: skip
    return Call(F.scaled_dot_product_attention, [q, k, v], (), options, tolerance=10)


@operator("integers in bins")
def _bins(r):
    x = lying(r, (r.randint(1, 40),), r.choice(INTEGERS + FLOATS), low=0, high=3, special=0)
    return Call(torch.histc, [x], (r.randint(1, 9), 0, r.choice([0, 7])))
