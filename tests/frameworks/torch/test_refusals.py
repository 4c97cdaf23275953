# SPDX-License-Identifier: Apache-2.0
"""What an operator refuses instead of computing something else: the table of refusals.

Right is what PyTorch does: its CPU in the same run, or for devices the texts that other
accelerators give.
"""

import re

import pytest
import torch
import torch.nn.functional as F

SAME_DEVICE = "Expected all tensors to be on the same device, but found at least two devices"
INDEX_DEVICE = "indices should be either on cpu or on the same device as the indexed tensor"
TYPES = "Input type|should be the same|" + SAME_DEVICE


def maker(device):
    def make(*shape, dtype=torch.float32):
        return torch.ones(*shape, dtype=dtype, device=device)

    return make


def index(make, *shape):
    return make(*shape, dtype=torch.int64)


def module_elsewhere(here, there):
    module = torch.nn.Linear(4, 4)
    with torch.no_grad():
        for name, parameter in list(module.named_parameters()):
            setattr(module, name, torch.nn.Parameter(there(*parameter.shape)))
    return module(here(2, 4))


def gru_cell_elsewhere(here, there):
    return torch.gru_cell(here(2, 3), here(2, 3), there(9, 3), here(9, 3))


# here: tensors of the device; there: tensors of another one, of the host or of a second device.
MIXED = {
    "add": (lambda here, there: here(2) + there(2), SAME_DEVICE),
    "add, the other first": (lambda here, there: there(2) + here(2), SAME_DEVICE),
    "add_": (lambda here, there: here(2).add_(there(2)), SAME_DEVICE),
    "add_, the other written": (lambda here, there: there(2).add_(here(2)), SAME_DEVICE),
    "add out": (lambda here, there: torch.add(here(2), 1, out=there(2)), SAME_DEVICE),
    "exp out": (lambda here, there: torch.exp(here(2), out=there(2)), SAME_DEVICE),
    "exp2 out": (lambda here, there: torch.exp2(here(2), out=there(2)), SAME_DEVICE),
    "fmax": (lambda here, there: torch.fmax(here(2), there(2)), SAME_DEVICE),
    "where": (lambda here, there: torch.where(here(2) > 0, there(2), here(2)), SAME_DEVICE),
    "where, the condition": (lambda here, there: torch.where(there(2) > 0, here(2), here(2)),
                             SAME_DEVICE),
    "masked_fill": (lambda here, there: here(2).masked_fill(there(2) > 0, 1.0), SAME_DEVICE),
    "lerp": (lambda here, there: torch.lerp(here(2), there(2), 0.5), SAME_DEVICE),
    "foreach_add": (lambda here, there: torch._foreach_add([here(2)], [there(2)]), SAME_DEVICE),
    "foreach_mul_": (lambda here, there: torch._foreach_mul_([here(2)], [there(2)]), SAME_DEVICE),
    "mm": (lambda here, there: here(2, 2) @ there(2, 2), SAME_DEVICE),
    "mm out": (lambda here, there: torch.mm(here(2, 2), here(2, 2), out=there(2, 2)), SAME_DEVICE),
    "bmm": (lambda here, there: torch.bmm(here(1, 2, 2), there(1, 2, 2)), SAME_DEVICE),
    "mv": (lambda here, there: here(2, 2).mv(there(2)), SAME_DEVICE),
    "dot": (lambda here, there: here(2).dot(there(2)), SAME_DEVICE),
    "addmm": (lambda here, there: torch.addmm(there(2), here(2, 2), here(2, 2)), SAME_DEVICE),
    "linear": (lambda here, there: F.linear(here(2, 2), there(2, 2)), SAME_DEVICE),
    "linear, the bias": (lambda here, there: F.linear(here(2, 2), here(2, 2), there(2)),
                         SAME_DEVICE),
    "a module elsewhere": (module_elsewhere, SAME_DEVICE),
    "conv1d": (lambda here, there: F.conv1d(here(1, 1, 4), there(1, 1, 2)), TYPES),
    "conv2d": (lambda here, there: F.conv2d(here(1, 1, 4, 4), there(1, 1, 2, 2)), TYPES),
    "conv2d, the bias": (lambda here, there: F.conv2d(here(1, 1, 4, 4), here(1, 1, 2, 2), there(1)),
                         TYPES),
    "conv2d in f64": (
        lambda here, there: F.conv2d(here(1, 1, 4, 4).double(), there(1, 1, 2, 2).double()), TYPES),
    "layer_norm": (lambda here, there: F.layer_norm(here(2, 4), (4,), there(4)), SAME_DEVICE),
    "group_norm": (lambda here, there: F.group_norm(here(2, 4), 2, there(4)), SAME_DEVICE),
    "batch_norm": (lambda here, there: F.batch_norm(here(2, 3, 4), there(3), there(3)),
                   SAME_DEVICE),
    "prelu": (lambda here, there: F.prelu(here(2, 3), there(3)), SAME_DEVICE),
    "gru_cell": (gru_cell_elsewhere, SAME_DEVICE),
    "attention": (lambda here, there: F.scaled_dot_product_attention(
        here(1, 1, 2, 4), there(1, 1, 2, 4), here(1, 1, 2, 4)), "the same device type"),
    "attention, the mask": (lambda here, there: F.scaled_dot_product_attention(
        here(1, 1, 2, 4), here(1, 1, 2, 4), here(1, 1, 2, 4), attn_mask=there(2, 2)), SAME_DEVICE),
    "mse_loss": (lambda here, there: F.mse_loss(here(2), there(2)), SAME_DEVICE),
    "smooth_l1_loss": (lambda here, there: F.smooth_l1_loss(here(2), there(2)), SAME_DEVICE),
    "cross_entropy": (lambda here, there: F.cross_entropy(here(2, 4), index(there, 2)),
                      SAME_DEVICE),
    "cat": (lambda here, there: torch.cat([here(2), there(2)]), SAME_DEVICE),
    "stack": (lambda here, there: torch.stack([here(2), there(2)]), SAME_DEVICE),
    "embedding": (lambda here, there: F.embedding(index(there, 1), here(3, 2)), SAME_DEVICE),
    "embedding, the weight": (lambda here, there: F.embedding(index(here, 1), there(3, 2)),
                              SAME_DEVICE),
    "index_select": (lambda here, there: here(3, 3).index_select(0, index(there, 1)), SAME_DEVICE),
    "gather": (lambda here, there: here(3).gather(0, index(there, 1)), SAME_DEVICE),
    "scatter": (lambda here, there: here(3).scatter_(0, index(there, 1), here(1)), SAME_DEVICE),
    "scatter, the source": (lambda here, there: here(3).scatter_(0, index(here, 1), there(1)),
                            SAME_DEVICE),
    "scatter_add": (lambda here, there: here(3).scatter_add_(0, index(here, 1), there(1)),
                    SAME_DEVICE),
    "index_add": (lambda here, there: here(3).index_add_(0, index(here, 1), there(1)),
                  "to be in the same device"),
    "index_copy": (lambda here, there: here(3).index_copy_(0, index(there, 1), here(1)),
                   "to be in the same device"),
    "index_put, the values": (lambda here, there: here(3).index_put_((index(here, 1),), there(1)),
                              SAME_DEVICE),
    "take": (lambda here, there: here(3).take(index(there, 1)), SAME_DEVICE),
    "put": (lambda here, there: here(3).put_(index(there, 1), here(1)), SAME_DEVICE),
    "masked_select": (lambda here, there: here(3).masked_select(there(3) > 0), SAME_DEVICE),
    "sum out": (lambda here, there: torch.sum(here(2, 2), 0, out=there(2)), SAME_DEVICE),
    "sum out in another type": (
        lambda here, there: torch.sum(here(2, 2), 0, dtype=torch.float64, out=there(2).double()),
        SAME_DEVICE),
    "sort out": (lambda here, there: torch.sort(here(2), out=(there(2), index(there, 2))),
                 SAME_DEVICE),
    "cumsum out": (lambda here, there: torch.cumsum(here(2), 0, out=there(2)), SAME_DEVICE),
    "on the host": (lambda here, there: torch.special.bessel_j0(here(2), out=there(2)),
                    SAME_DEVICE),
    "on the host, of two": (lambda here, there: torch.heaviside(here(2), there(2)), SAME_DEVICE),
}  # fmt: skip


def foreign():
    devices = ["cpu"]
    if torch.xhal.device_count() > 1:
        devices.append("xhal:1")
    return devices


@pytest.mark.parametrize("device", foreign())
@pytest.mark.parametrize("case", MIXED)
def test_operands_of_two_devices_are_refused_in_torchs_words(case, device):
    action, text = MIXED[case]
    with pytest.raises((RuntimeError, IndexError), match=text):
        action(maker("xhal:0"), maker(device))
    assert torch.xhal.fallbacks() == {}  # nothing has run on the host either


@pytest.mark.parametrize("device", foreign())
def test_the_refusal_names_both_devices(device):
    with pytest.raises(RuntimeError) as refusal:
        maker("xhal:0")(2) + maker(device)(2)
    named = re.search(r"found at least two devices, (\S+) and (\S+)!", str(refusal.value))
    assert set(named.groups()) == {"xhal:0", device}


def test_indices_on_a_foreign_device_are_refused():
    with pytest.raises(RuntimeError, match=INDEX_DEVICE):
        torch.ones(3)[torch.tensor([0], device="xhal")]
    if torch.xhal.device_count() > 1:
        with pytest.raises(RuntimeError, match=INDEX_DEVICE):
            torch.ones(3, device="xhal:0")[torch.tensor([0], device="xhal:1")]


def test_numbers_on_the_host_and_indices_on_the_host_are_taken():
    x = torch.arange(4.0, device="xhal")
    number = torch.tensor(2.0)
    assert (x * number).tolist() == [0, 2, 4, 6]
    assert (number - x).tolist() == [2, 1, 0, -1]
    assert torch.where(x > 1, x, number).tolist() == [2, 2, 2, 3]
    assert torch.lerp(x, x + 2, torch.tensor(0.5)).tolist() == [1, 2, 3, 4]
    assert torch.heaviside(x - 1, number).tolist() == [0, 2, 1, 1]  # on the host
    assert x[torch.tensor([3, 0])].tolist() == [3, 0]
    x[torch.tensor([3, 0])] = torch.tensor(9.0)
    assert x.tolist() == [9, 1, 2, 9]


# ---- memory that is written twice, or read after it was written ----------------------------------


def shifted(action):
    def run(device):
        x = torch.arange(1, 9, dtype=torch.float32, device=device)
        action(x[1:], x[:-1])
        return x

    return run


def expanded(action):
    def run(device):
        x = torch.zeros(3, 1, device=device)
        action(x.expand(3, 4), torch.arange(12.0, device=device).view(3, 4))
        return x

    return run


def on(*shape, dtype=torch.float32):
    def fill(device):
        numbers = torch.arange(torch.Size(shape).numel(), device=device)
        return numbers.to(dtype).reshape(shape)

    return fill


def long_row(device):
    x = torch.ones(1 << 18, device=device)
    x[1:].add_(x[:-1])
    return x


def transposed_on_itself(device):
    x = on(4, 4)(device)
    return x.add_(x.t())


def row_by_list_of_itself(device):
    x = on(4, 2)(device)
    x[torch.tensor([0, 2], device=device)] = x[1]
    return x


def mm_on_its_factor(device):
    x = on(4, 4)(device)
    torch.mm(x, x.clone(), out=x)
    return x


def sort_on_itself(device):
    x = -on(9)(device)
    torch.sort(x, out=(x, torch.empty(9, dtype=torch.int64, device=device)))
    return x


def the_same_twice_in_a_list(device):
    x = on(4)(device)
    torch._foreach_add_([x, x], 1.0)
    return x


def a_list_read_after_it_was_written(device):
    x, y = on(4)(device), on(4)(device)
    torch._foreach_add_([x, y], [y, x])
    return torch.cat([x, y])


OVERLAPS = {
    "add_ shifted": shifted(lambda o, i: o.add_(i)),
    "mul out shifted": shifted(lambda o, i: torch.mul(i, 2.0, out=o)),
    "div_ shifted": shifted(lambda o, i: o.div_(i)),
    "exp out shifted": shifted(lambda o, i: torch.exp(i, out=o)),
    "exp2 out shifted": shifted(lambda o, i: torch.exp2(i, out=o)),
    "fmax out shifted": shifted(lambda o, i: torch.fmax(i, i, out=o)),
    "addcmul_ shifted": shifted(lambda o, i: o.addcmul_(i, i)),
    "copy_ shifted": shifted(lambda o, i: o.copy_(i)),
    "lerp_ shifted": shifted(lambda o, i: o.lerp_(i, 0.5)),
    "maximum out shifted": shifted(lambda o, i: torch.maximum(i, i, out=o)),
    "eq_ shifted": shifted(lambda o, i: o.eq_(i)),
    "add_ shifted, converted": shifted(lambda o, i: o.add_(i.view(torch.int32))),
    "foreach_add_ shifted": shifted(lambda o, i: torch._foreach_add_([o], [i])),
    "foreach_mul_ shifted": shifted(lambda o, i: torch._foreach_mul_([o], [i])),
    "foreach_addcmul_ shifted": shifted(lambda o, i: torch._foreach_addcmul_([o], [i], [i])),
    "cumsum out shifted": shifted(lambda o, i: torch.cumsum(i, 0, out=o)),
    "cat out on its own part": shifted(lambda o, i: torch.cat([i[:3], i[3:]], out=o)),
    "index_select out on its source": shifted(
        lambda o, i: torch.index_select(i, 0, torch.arange(7, device=i.device), out=o)
    ),
    "gather out on its source": shifted(
        lambda o, i: torch.gather(i, 0, torch.arange(7, device=i.device), out=o)
    ),
    "heaviside_ shifted": shifted(lambda o, i: o.heaviside_(i)),
    "index_put_ of a row of itself": row_by_list_of_itself,
    "add_ on a long shifted row": long_row,
    "add_ of the transposed": transposed_on_itself,
    "add_ on an expanded tensor": expanded(lambda x, y: x.add_(y)),
    "copy_ on an expanded tensor": expanded(lambda x, y: x.copy_(y)),
    "copy_ from the host on an expanded tensor": expanded(lambda x, y: x.copy_(y.cpu())),
    "cos_ on an expanded tensor": expanded(lambda x, y: x.cos_()),
    "exp2_ on an expanded tensor": expanded(lambda x, y: x.exp2_()),
    "heaviside_ on an expanded tensor": expanded(lambda x, y: x.heaviside_(y)),
    "cumsum_ on an expanded tensor": expanded(lambda x, y: x.cumsum_(0)),
    "masked_fill_ on an expanded tensor": expanded(lambda x, y: x.masked_fill_(y > 5, 3.0)),
    "fill_ on an expanded tensor": expanded(lambda x, y: x.fill_(3.0)),
    "mm out on its factor": mm_on_its_factor,
    "sort out on itself": sort_on_itself,
    "the same tensor twice in a list": the_same_twice_in_a_list,
    "a list read after it was written": a_list_read_after_it_was_written,
    "add_ that would have to grow": lambda d: on(3)(d).add_(on(2, 3)(d)),
    "add_ that would have to grow and narrow": lambda d: on(3, dtype=torch.int8)(d).add_(
        on(2, 3, dtype=torch.int32)(d)
    ),
    "xlogy_ that would have to grow": lambda d: on(3)(d).xlogy_(on(2, 3)(d)),
    "exp2 out of another kind": lambda d: torch.exp2(on(3)(d), out=on(3, dtype=torch.int32)(d)),
}
# What the CPU computes from memory it has changed already; here each input is read as it was.
AS_IF_CLONED = {
    "mm out on its factor": lambda: on(4, 4)("cpu") @ on(4, 4)("cpu"),
    "sort out on itself": lambda: torch.sort(-on(9)("cpu")).values,
}


def attempt(action, device):
    try:
        return action(device).cpu(), None
    except Exception as error:  # noqa: BLE001 - the kind is compared
        return None, error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", OVERLAPS)
def test_writes_to_shared_memory_are_refused_or_equal_the_cpus(case):
    expected, refused = attempt(OVERLAPS[case], "cpu")
    actual, error = attempt(OVERLAPS[case], "xhal")
    if case in AS_IF_CLONED:
        expected = AS_IF_CLONED[case]()
    if refused is not None:
        assert error is not None, f"the CPU says: {refused}"
        assert str(error).splitlines()[0] == str(refused).splitlines()[0]
    else:
        assert error is None, error
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("kind", ["normal_", "uniform_", "exponential_", "random_", "bernoulli_"])
def test_random_numbers_are_not_drawn_twice_for_one_place(kind):
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        getattr(torch.zeros(3, 1, device="xhal").expand(3, 4), kind)()


# ---- types ---------------------------------------------------------------------------------------

ALL_TYPES = sorted(
    {v for v in vars(torch).values() if isinstance(v, torch.dtype) and ".q" not in str(v)}, key=str
)


def bytes_of(dtype):
    try:
        return torch.empty(1, dtype=dtype).element_size()
    except (RuntimeError, NotImplementedError, TypeError):
        return 0


@pytest.mark.parametrize("dtype", [t for t in ALL_TYPES if bytes_of(t)], ids=str)
def test_strided_copies_of_every_type_move_its_elements_and_nothing_beside_them(dtype):
    size = bytes_of(dtype)
    bits = torch.randint(0, 256, (6 * 7 * size,), dtype=torch.uint8, generator=torch.Generator())
    source = bits.view(6, 7 * size).to("xhal")
    target = torch.zeros(6, 14 * size, dtype=torch.uint8, device="xhal")
    try:
        from_ = source.view(dtype)
        to = target.view(dtype)
    except (RuntimeError, NotImplementedError):
        pytest.skip(f"torch cannot view bytes as {dtype}")
    try:
        to[:, ::2].copy_(from_)
    except NotImplementedError as refusal:
        assert "xhal cannot move elements of" in str(refusal)
        return
    expected = torch.zeros(6, 14, size, dtype=torch.uint8)
    expected[:, ::2] = bits.view(6, 7, size)
    assert torch.equal(target.cpu(), expected.view(6, 14 * size))


# ---- indices -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-1, 5, -6, 40])
@pytest.mark.parametrize("call", ["index_copy_", "index_fill_", "index_add_", "scatter_"])
def test_an_index_outside_the_tensor_is_an_error_where_the_cpu_has_one(call, wrong):
    def run(device):
        storage = torch.arange(64.0, device=device)
        view, rows = storage[16:21], torch.tensor([wrong], device=device)
        value = 9.0 if call == "index_fill_" else torch.full((1,), 9.0, device=device)
        getattr(view, call)(0, rows, value)
        if device == "xhal":
            torch.xhal.synchronize()
        return storage

    expected, refused = attempt(run, "cpu")
    actual, error = attempt(run, "xhal")
    if error is not None:
        torch.xhal.recover()
    assert (refused is None) == (error is None), (refused, error)
    if refused is None:
        assert torch.equal(actual, expected)


def test_index_copy_refuses_a_source_that_would_have_to_be_repeated():
    x, rows = torch.zeros(3, 4, device="xhal"), torch.tensor([0, 2], device="xhal")
    with pytest.raises((RuntimeError, IndexError)):
        x.index_copy_(0, rows, torch.ones(1, 4, device="xhal"))


# ---- draws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_exponential_numbers_are_never_zero(dtype):
    # Counters whose words make the largest uniform numbers are rare: many draws.
    for _ in range(4):
        x = torch.empty(1 << 23, dtype=dtype, device="xhal").exponential_()
        assert bool((x > 0).all()) and bool(x.isfinite().all())
    assert bool((torch.empty(1 << 20, dtype=dtype, device="xhal").exponential_(1e4) > 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_multinomial_draws_nothing_of_weight_zero(dtype):
    p = torch.zeros(64, 20_000, dtype=dtype, device="xhal")
    p[:, 77] = 1
    assert bool((torch.multinomial(p, 1) == 77).all())
    # A weight so small that weight / noise is 0 still comes before one that is 0.
    tiny = torch.zeros(1000, 3, device="xhal")
    tiny[:, 1] = 1e-45
    kept = tiny.clone()
    assert bool((torch.multinomial(tiny, 1) == 1).all())
    assert torch.equal(tiny, kept)


WEIGHTS = {
    "negative": ([0.5, -0.1, 0.6], 1, False),
    "nan": ([0.5, float("nan"), 0.6], 1, False),
    "infinite": ([0.5, float("inf"), 0.6], 1, False),
    "all zero": ([0.0, 0.0, 0.0], 1, False),
    "more draws than categories": ([1.0, 1.0], 3, False),
    "negative, with replacement": ([0.5, -0.1, 0.6], 4, True),
    "all zero, with replacement": ([0.0, 0.0, 0.0], 4, True),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_multinomial_refuses_weights_that_are_none(case):
    weights, draws, replacement = WEIGHTS[case]
    run = lambda device: torch.multinomial(  # noqa: E731
        torch.tensor(weights, device=device), draws, replacement
    )
    _, refused = attempt(run, "cpu")
    _, error = attempt(run, "xhal")
    assert refused is not None
    assert str(error).splitlines()[0] == str(refused).splitlines()[0]


# ---- attention -----------------------------------------------------------------------------------


def test_attention_with_scale_zero_weighs_all_keys_alike():
    q, k, v = (torch.randn(1, 2, n, 8) for n in (5, 7, 7))
    out = F.scaled_dot_product_attention(q.to("xhal"), k.to("xhal"), v.to("xhal"), scale=0.0)
    torch.testing.assert_close(out.cpu(), v.mean(2, keepdim=True).expand(1, 2, 5, 8))


def test_attention_shares_heads_of_keys_only_when_asked():
    q, k = torch.randn(1, 8, 4, 8, device="xhal"), torch.randn(1, 2, 4, 8, device="xhal")
    with pytest.raises(RuntimeError, match="must match"):
        F.scaled_dot_product_attention(q, k, k)
    many = k.repeat_interleave(4, 1)
    expected = F.scaled_dot_product_attention(q, many, many)
    torch.testing.assert_close(F.scaled_dot_product_attention(q, k, k, enable_gqa=True), expected)
