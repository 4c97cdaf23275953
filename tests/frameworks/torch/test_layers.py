# SPDX-License-Identifier: Apache-2.0
"""What networks are made of, against torch's CPU: values and gradients."""

import pytest
import torch
import torch.nn.functional as F

from compare import FLOATS, INTEGERS, check, layouts, make, same, to_device


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_products(dtype, no_fallback):
    a, b, c, v = make(dtype, 5, 7), make(dtype, 7, 6), make(dtype, 5, 6), make(dtype, 7)
    check(torch.mm, a, b, gradient=True, scale=2)
    check(
        lambda x, y: torch.mm(x.t(), y.t()),
        make(dtype, 7, 5),
        make(dtype, 6, 7),
        gradient=True,
        scale=2,
    )
    check(torch.addmm, c, a, b, gradient=True, scale=2)
    check(lambda x, y, z: torch.addmm(x, y, z, beta=0.5, alpha=2), c, a, b, gradient=True, scale=2)
    check(torch.addmm, make(dtype, 6), a, b, gradient=True, scale=2)
    check(torch.addmm, make(dtype, 5, 1), a, b, scale=2)
    check(torch.mv, a, v, gradient=True, scale=2)
    check(torch.dot, v, v.flip(0), gradient=True, scale=2)
    check(F.linear, make(dtype, 2, 3, 7), make(dtype, 6, 7), make(dtype, 6), gradient=True, scale=2)
    check(F.linear, make(dtype, 2, 3, 7), make(dtype, 6, 7), gradient=True, scale=2)
    check(torch.bmm, make(dtype, 3, 4, 5), make(dtype, 3, 5, 2), gradient=True, scale=2)
    check(
        torch.baddbmm,
        make(dtype, 3, 4, 2),
        make(dtype, 3, 4, 5),
        make(dtype, 3, 5, 2),
        gradient=True,
        scale=2,
    )
    check(torch.matmul, make(dtype, 2, 3, 4, 5), make(dtype, 2, 3, 5, 2), gradient=True, scale=2)
    check(lambda x: torch.mm(x[:, ::2], x[:, ::2].t()), make(dtype, 5, 8), scale=2)
    (
        check(torch.einsum, "bij,bkj->bik", make(dtype, 2, 3, 4), make(dtype, 2, 5, 4), scale=2)
        if dtype == torch.float32
        else None
    )


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_softmax_and_losses(dtype, no_fallback):
    for dim in (0, 1, -1):
        check(lambda x: F.softmax(x, dim), make(dtype, 4, 9, 5), gradient=True)
        check(lambda x: F.log_softmax(x, dim), make(dtype, 4, 9, 5), gradient=True)
    target = torch.tensor([1, 8, -100, 3])
    x = make(dtype, 4, 9)
    for reduction in ("mean", "sum", "none"):
        check(lambda t, y: F.cross_entropy(t, y, reduction=reduction), x, target, gradient=True)
        check(
            lambda t, y: F.cross_entropy(
                t, y, weight=torch.linspace(0.5, 2, 9).to(t), reduction=reduction
            ),
            x,
            target,
            gradient=True,
        )
        check(
            lambda t, y: F.mse_loss(t, y, reduction=reduction),
            x,
            make(dtype, 4, 9, seed=2),
            gradient=True,
        )
    check(lambda t, y: F.cross_entropy(t, y, label_smoothing=0.1), x, target, gradient=True)
    check(F.cross_entropy, make(dtype, 2, 5, 3, 4), torch.randint(5, (2, 3, 4)), gradient=True)
    check(
        lambda t, y: F.binary_cross_entropy_with_logits(t, y), x, (x > 0).to(dtype), gradient=True
    )
    check(lambda t: F.softmax(t, -1, dtype=torch.float32), x)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_normalisation(dtype, no_fallback):
    x = make(dtype, 4, 6, 5, 3)
    check(
        lambda t, w, b: F.layer_norm(t, (3,), w, b),
        x,
        make(dtype, 3),
        make(dtype, 3, seed=2),
        gradient=True,
        scale=4,
    )
    check(lambda t: F.layer_norm(t, (5, 3)), x, gradient=True, scale=4)
    check(lambda t, w: F.rms_norm(t, (3,), w), x, make(dtype, 3), gradient=True, scale=4)
    check(
        lambda t, w, b: F.group_norm(t, 2, w, b),
        x,
        make(dtype, 6),
        make(dtype, 6, seed=2),
        gradient=True,
        scale=8,
    )
    check(
        lambda t, w, b: F.batch_norm(t, None, None, w, b, training=True),
        x,
        make(dtype, 6),
        make(dtype, 6, seed=2),
        gradient=True,
        scale=8,
    )
    check(
        lambda t, m, v: F.batch_norm(t, m, v),
        x,
        make(dtype, 6),
        make(dtype, 6, low=0.5, seed=2),
        scale=4,
    )


def test_batch_norm_updates_its_running_statistics(no_fallback):
    here = torch.nn.BatchNorm2d(3)
    there = torch.nn.BatchNorm2d(3).to("xhal")
    x = make(torch.float32, 4, 3, 5, 5)
    for _ in range(3):
        same(there(x.to("xhal")), here(x), scale=4)
    same(there.running_mean, here.running_mean)
    same(there.running_var, here.running_var)
    here.eval(), there.eval()
    same(there(x.to("xhal")), here(x), scale=4)


def test_embedding(no_fallback):
    tokens = torch.tensor([[1, 2, 1], [0, 5, 2]])
    check(lambda w: F.embedding(tokens.to(w.device), w), make(torch.float32, 7, 4), gradient=True)
    check(
        lambda w: F.embedding(tokens.to(w.device), w, padding_idx=2),
        make(torch.float32, 7, 4),
        gradient=True,
    )
    check(lambda w: F.embedding(tokens.to(w.device), w), make(torch.bfloat16, 7, 4), gradient=True)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_convolution(dtype, no_fallback):
    x, w, b = make(dtype, 2, 4, 9, 8), make(dtype, 6, 4, 3, 3), make(dtype, 6)
    scale = 4
    check(F.conv2d, x, w, b, gradient=True, scale=scale)
    check(
        lambda t, k: F.conv2d(t, k, stride=2, padding=1, dilation=2),
        x,
        w,
        gradient=True,
        scale=scale,
    )
    check(
        lambda t, k: F.conv2d(t, k, groups=2),
        x,
        make(dtype, 6, 2, 3, 3),
        gradient=True,
        scale=scale,
    )
    check(
        lambda t, k, c: F.conv1d(t, k, c, padding=2),
        make(dtype, 2, 3, 11),
        make(dtype, 5, 3, 3),
        make(dtype, 5),
        gradient=True,
        scale=scale,
    )
    check(
        lambda t, k, c: F.conv_transpose2d(t, k, c, stride=2),
        x,
        make(dtype, 4, 5, 3, 3),
        make(dtype, 5),
        gradient=True,
        scale=scale,
    )


def test_pooling_and_resampling(no_fallback):
    x = torch.randperm(2 * 3 * 8 * 6).reshape(2, 3, 8, 6).float() / 100
    check(lambda t: F.max_pool2d(t, 2), x, gradient=True)
    check(lambda t: F.max_pool2d(t, 3, stride=2, padding=1, return_indices=True), x)
    check(lambda t: F.max_pool2d(t, (3, 2), ceil_mode=True), x, gradient=True)
    check(lambda t: F.avg_pool2d(t, 2), x, gradient=True)
    check(
        lambda t: F.avg_pool2d(t, 3, stride=2, padding=1, count_include_pad=False), x, gradient=True
    )
    check(lambda t: F.adaptive_avg_pool2d(t, (4, 3)), x, gradient=True)
    check(lambda t: F.adaptive_avg_pool2d(t, 1), x, gradient=True)
    check(lambda t: F.interpolate(t, scale_factor=2), x, gradient=True)
    check(lambda t: F.interpolate(t, size=(5, 9), mode="bilinear"), x, gradient=True)
    check(
        lambda t: F.interpolate(t, scale_factor=2, mode="bilinear", align_corners=True),
        x,
        gradient=True,
    )


def test_recurrent_cells(no_fallback):
    torch.manual_seed(3)
    for cell in (torch.nn.LSTM, torch.nn.GRU):
        here = cell(5, 6, 2, batch_first=True)
        there = cell(5, 6, 2, batch_first=True)
        there.load_state_dict(here.state_dict())
        there.to("xhal")
        x = make(torch.float32, 3, 4, 5)
        expected, actual = here(x)[0], there(x.to("xhal"))[0]
        same(actual, expected)
        expected.square().sum().backward()
        actual.square().sum().backward()
        for a, e in zip(there.parameters(), here.parameters()):
            same(a.grad, e.grad, scale=8)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_attention(dtype, no_fallback):
    q, k, v = (make(dtype, 2, 4, 6, 8, seed=s) for s in (0, 1, 2))
    check(F.scaled_dot_product_attention, q, k, v, gradient=True, scale=2)
    check(
        lambda a, b, c: F.scaled_dot_product_attention(a, b, c, is_causal=True),
        q,
        k,
        v,
        gradient=True,
        scale=2,
    )
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    check(
        lambda a, b, c: F.scaled_dot_product_attention(a, b, c, attn_mask=mask.to(a.device)),
        q,
        k,
        v,
        gradient=True,
        scale=2,
    )
    check(
        lambda a, b, c: F.scaled_dot_product_attention(
            a, b, c, attn_mask=torch.zeros(2, 1, 6, 6).to(a)
        ),
        q,
        k,
        v,
        scale=2,
    )
    check(
        lambda a, b, c: F.scaled_dot_product_attention(a, b, c, enable_gqa=True),
        q,
        k[:, :2],
        v[:, :2].contiguous(),
        scale=2,
    )


def test_dropout_keeps_its_share_and_scales(no_fallback):
    torch.manual_seed(0)
    x = torch.ones(100_000, device="xhal", requires_grad=True)
    y = F.dropout(x, 0.25)
    kept = (y != 0).float().mean().item()
    assert abs(kept - 0.75) < 0.01
    assert y.max().item() == pytest.approx(1 / 0.75)
    y.sum().backward()
    assert torch.equal(x.grad, y)


ACTIVATIONS = {
    "relu6": F.relu6,
    "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.75),
    "hardtanh in place": lambda x: F.hardtanh(x * 1, -0.5, 0.75, inplace=True),
    "hardswish": F.hardswish,
    "hardswish in place": lambda x: F.hardswish(x * 2, inplace=True),
    "hardsigmoid": F.hardsigmoid,
    "threshold": lambda x: F.threshold(x, 0.1, -3),
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "leaky_relu in place": lambda x: F.leaky_relu(x * 1, 0.2, inplace=True),
    "elu": lambda x: F.elu(x, 1.5),
    "elu in place": lambda x: F.elu(x * 1, 1.5, inplace=True),
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "softplus": lambda x: F.softplus(x, 2, 3),
    "mish": F.mish,
    "logsigmoid": F.logsigmoid,
    "glu": lambda x: F.glu(x, 1),
    "prelu": lambda x: F.prelu(x, torch.full((1,), 0.3, dtype=x.dtype, device=x.device)),
}


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation(name, dtype, no_fallback):
    for shape in [(5, 8), (3, 4, 6), (0, 4)]:
        for _, x in layouts(make(dtype, *shape, low=-4, high=4)):
            check(ACTIVATIONS[name], x, gradient=x.is_contiguous() and x.numel() > 0)


LOSSES = {
    "smooth_l1": lambda x, y, r: F.smooth_l1_loss(x, y, reduction=r, beta=0.5),
    "l1": lambda x, y, r: F.smooth_l1_loss(x, y, reduction=r, beta=0.0),
    "huber": lambda x, y, r: F.huber_loss(x, y, reduction=r, delta=0.7),
    "bce": lambda x, y, r: F.binary_cross_entropy(x.sigmoid(), (y > 0).to(x), reduction=r),
    "bce weighted": lambda x, y, r: F.binary_cross_entropy(
        x.sigmoid(), (y > 0).to(x), weight=y.detach().abs(), reduction=r
    ),
    "kl": lambda x, y, r: F.kl_div(x.log_softmax(1), y.softmax(1).detach(), reduction=r),
}


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", LOSSES)
def test_elementwise_loss(name, reduction, no_fallback):
    x, y = make(torch.float32, 6, 7), make(torch.float32, 6, 7, seed=4)
    check(lambda a, b: LOSSES[name](a, b, reduction), x, y, gradient=True, scale=2)


def small(layer, *inputs, **options):
    """The layer, with the same parameters, on both devices."""
    torch.manual_seed(2)
    here = layer(*inputs, **options)
    there = layer(*inputs, **options)
    there.load_state_dict(here.state_dict())
    return here, there.to("xhal")


@pytest.mark.parametrize("norm_first", [True, False])
def test_encoder_takes_its_fast_path_on_the_device(norm_first, no_fallback):
    here, there = small(
        torch.nn.TransformerEncoderLayer, 16, 4, 32, batch_first=True, norm_first=norm_first
    )
    here.eval(), there.eval()
    x = make(torch.float32, 3, 7, 16)
    mask = torch.nn.Transformer.generate_square_subsequent_mask(7)
    padding = torch.tensor([[False] * 7, [False] * 5 + [True] * 2, [False] * 7])
    with torch.no_grad():
        same(there(x.to("xhal")), here(x), scale=2)
        same(there(x.to("xhal"), mask.to("xhal")), here(x, mask), scale=2)
        kept = ~padding
        actual = there(x.to("xhal"), src_key_padding_mask=padding.to("xhal")).cpu()
        same(actual[kept], here(x, src_key_padding_mask=padding)[kept], scale=2)


@pytest.mark.parametrize("weights", [True, False])
def test_attention_layer_in_inference(weights, no_fallback):
    here, there = small(torch.nn.MultiheadAttention, 16, 4, batch_first=True)
    here.eval(), there.eval()
    x = make(torch.float32, 3, 7, 16)
    with torch.no_grad():
        y, z = x.to("xhal"), there(*[x.to("xhal")] * 3, need_weights=weights)
        expected = here(x, x, x, need_weights=weights)
        same(z[0], expected[0], scale=2)
        if weights:
            same(z[1], expected[1], scale=2)
        assert y.device.type == "xhal"


def test_weight_norm(no_fallback):
    here, there = small(torch.nn.Linear, 5, 6)
    for layer in (here, there):
        torch.nn.utils.parametrizations.weight_norm(layer)
    x = make(torch.float32, 4, 5)
    expected, actual = here(x), there(x.to("xhal"))
    same(actual, expected)
    expected.square().sum().backward(), actual.square().sum().backward()
    for a, e in zip(there.parameters(), here.parameters()):
        same(a.grad, e.grad, scale=4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "batch_first": True},
        {"bidirectional": True, "num_layers": 2},
        {"bias": False},
        {"proj_size": 3},
    ],
    ids=str,
)
def test_lstm_with_all_its_gradients(options, no_fallback):
    here, there = small(torch.nn.LSTM, 5, 6, **options)
    ways = here.num_layers * (2 if here.bidirectional else 1)
    inputs = [
        make(torch.float32, 4, 4, 5),
        make(torch.float32, ways, 4, here.proj_size or 6),
        make(torch.float32, ways, 4, 6),
    ]
    results = []
    for layer, device in ((here, "cpu"), (there, "xhal")):
        x, h, c = (t.clone().to(device).requires_grad_() for t in inputs)
        out, (hn, cn) = layer(x, (h, c))
        with torch.no_grad():
            same(layer(x, (h, c))[0], out.detach().cpu())
        (out.square().sum() + (3 * hn).sum() + cn.square().sum()).backward()
        results.append([out, hn, cn, x.grad, h.grad, c.grad, *(p.grad for p in layer.parameters())])
    same([t.detach() for t in results[1]], [t.detach() for t in results[0]], scale=8)


def test_lstm_over_packed_sequences(no_fallback):
    here, there = small(torch.nn.LSTM, 5, 6, batch_first=True)
    x, lengths = make(torch.float32, 3, 7, 5), torch.tensor([7, 4, 2])
    results = []
    for layer, device in ((here, "cpu"), (there, "xhal")):
        packed = torch.nn.utils.rnn.pack_padded_sequence(x.to(device), lengths, batch_first=True)
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True)
        out.sum().backward()
        results.append([out.detach(), *(p.grad for p in layer.parameters())])
    same(results[1], results[0], scale=8)
