# SPDX-License-Identifier: Apache-2.0
"""torch's own samples (OpInfo) of the operators in the bridge's table: values and gradients."""

import pytest
import torch
from compare import TOLERANCE
from torch.testing._internal.common_methods_invocations import op_db

# By OpInfo name; what has a variant is "name.variant".
NATIVE = """
abs add addbmm addcdiv addcmul addmm addmv all amax amin aminmax any arange argmax argmin argsort
atleast_1d baddbmm bmm cat ceil chunk clamp clamp_max clamp_min clone contiguous cos cosh
count_nonzero cumsum diag diag_embed diagonal div.floor_rounding div.no_rounding_mode
div.trunc_rounding dot einsum empty_like eq erf exp exp2 expand expm1 eye fill flatten flip
floor floor_divide fmax fmin fmod frac full_like gather ge gt hstack index_add index_copy
index_fill index_put index_select isfinite isinf isnan le lerp linalg.vector_norm linspace log
log10 log1p log2 log_softmax logical_and logical_not logical_or logical_xor logsumexp lt
masked_fill masked_select matmul max.binary max.reduction_no_dim max.reduction_with_dim maximum
mean min.binary min.reduction_no_dim min.reduction_with_dim minimum mm movedim mul mv narrow
ne neg new_empty new_full new_ones new_zeros nn.functional.avg_pool2d
nn.functional.batch_norm nn.functional.binary_cross_entropy nn.functional.celu
nn.functional.conv1d nn.functional.conv2d nn.functional.conv_transpose2d
nn.functional.cross_entropy nn.functional.elu nn.functional.embedding nn.functional.gelu
nn.functional.glu nn.functional.group_norm nn.functional.hardsigmoid nn.functional.hardswish
nn.functional.hardtanh nn.functional.huber_loss nn.functional.layer_norm
nn.functional.leaky_relu nn.functional.linear nn.functional.logsigmoid
nn.functional.max_pool2d nn.functional.mish nn.functional.mse_loss nn.functional.nll_loss
nn.functional.normalize nn.functional.pad.constant nn.functional.prelu nn.functional.relu
nn.functional.relu6 nn.functional.rms_norm nn.functional.selu nn.functional.silu
nn.functional.smooth_l1_loss nn.functional.softplus nn.functional.threshold nonzero ones_like
outer permute pow prod ravel reciprocal remainder repeat reshape resize_ roll round rsqrt rsub
scatter scatter_add select sgn sigmoid sign sin sinh softmax sort split split_with_sizes sqrt
square squeeze stack std std_mean sub sum swapaxes t take tan tanh tile topk trace transpose tril
triu true_divide trunc unbind unflatten unfold unsqueeze var var_mean view vstack where xlogy
zero_ zeros_like
""".split()


# Edges of single samples (no dimension at all, nothing to reduce, old forms): the host computes.
EDGES = set("""
addmv all any aminmax argsort cat gather index_add index_copy index_fill index_select
nn.functional.binary_cross_entropy nn.functional.conv_transpose2d
nn.functional.embedding nn.functional.group_norm nn.functional.layer_norm prod scatter sort take
topk unfold
""".split())
SHAPES_ONLY = ("empty_like", "new_empty", "resize_")
UNSTABLE = ("argsort", "sort", "topk")  # the order of equal elements is nobody's promise


def key(op):
    return op.name + ("." + op.variant_test_name if op.variant_test_name else "")


FOUND = {key(op): op for op in op_db}
OPS = [FOUND[name] for name in NATIVE if name in FOUND]


def test_the_names_are_torchs():
    assert len(OPS) >= 0.95 * len(NATIVE), sorted(set(NATIVE) - set(FOUND))


def tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        return [t for part in value for t in tensors(part)]
    return []


def moved(value):
    if isinstance(value, torch.Tensor):
        return value.detach().to("xhal").requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)) and not hasattr(value, "_fields"):
        return type(value)(moved(part) for part in value)
    if isinstance(value, dict):
        return {name: moved(part) for name, part in value.items()}
    return torch.device("xhal") if value == torch.device("cpu") else value


def agree(op, actual, expected, dtype):
    if op.name in SHAPES_ONLY:
        assert actual.shape == expected.shape
        return
    if op.name in UNSTABLE and dtype != torch.float32:
        assert actual.shape == expected.shape and actual.dtype == expected.dtype
        return
    rtol, atol = TOLERANCE.get(dtype, TOLERANCE[torch.float32])
    if op.name == "addbmm":
        atol *= 3  # the CPU rounds after each of the batch
    torch.testing.assert_close(
        actual.detach().cpu(), expected.detach(), rtol=10 * rtol, atol=10 * atol, equal_nan=True
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64], ids=str)
@pytest.mark.parametrize("op", OPS, ids=key)
def test_samples(op, dtype):
    if dtype not in op.supported_dtypes("cpu"):
        pytest.skip("torch's CPU does not have it")
    gradient = dtype == torch.float32 and op.supports_autograd
    torch.xhal.reset_fallbacks()
    function = op.get_op()
    samples = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=gradient):
        here = [sample.input, *sample.args]
        there, options = moved(here), moved(sample.kwargs)
        expected = tensors(function(*here, **sample.kwargs))
        actual = tensors(function(*there, **options))
        assert len(actual) == len(expected)
        for a, e in zip(actual, expected):
            agree(op, a, e, dtype)
        samples += 1
        if gradient and expected and all(e.requires_grad and e.numel() for e in expected):
            inputs = [t for t in tensors(here) if t.requires_grad]
            if op.name in SHAPES_ONLY or samples > 8:
                continue
            weights = [torch.linspace(-1, 1, e.numel()).view(e.shape) for e in expected]
            kw = {"allow_unused": True}
            expected = torch.autograd.grad(expected, inputs, weights, **kw)
            others = [t for t in tensors(there) if t.requires_grad]
            actual = torch.autograd.grad(actual, others, [w.to("xhal") for w in weights], **kw)
            for a, e in zip(actual, expected):
                assert (a is None) == (e is None)
                if e is not None:
                    agree(op, a, e, dtype)
    assert samples
    if dtype.is_floating_point and op.name not in EDGES:
        assert torch.xhal.fallbacks() == {}
