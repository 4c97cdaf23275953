# SPDX-License-Identifier: Apache-2.0
"""What torch's own Python asks of a device's module: names, checkpointing, processes, profiles."""

import importlib.util
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import nn

TORCH = Path(importlib.util.find_spec("torch").origin).parent
MODULE = r"_?(?:custom_)?(?:device|privateuse1_backend)_(?:module|handle|mod)"
ASKED = [
    re.compile(rf"\b{MODULE}\.([A-Za-z_]\w*)"),
    re.compile(r"get_device_module\([^()]*(?:\([^()]*\))?[^()]*\)\.([A-Za-z_]\w*)"),
    re.compile(rf"(?:has|get)attr\(\s*(?:self\.)?{MODULE}\s*,\s*[\"'](\w+)[\"']"),
    re.compile(r"getattr\(torch, [\w.]*(?:device|backend)[\w.]*\)\.([A-Za-z_]\w*)"),
]
OTHERS = ("testing/", "_inductor/", "onnx/", "cuda/", "xpu/", "mps/", "mtia/", "_vendor/")
# What is asked but not given, and why that is right.
NOT_GIVEN = {
    "MemPool": "symmetric memory, which the device does not offer",
    "use_mem_pool": "symmetric memory, which the device does not offer",
    "set_rng_ctx": "asked of hpu only",
    "unset_rng_ctx": "asked of hpu only",
    "sparse": "legacy sparse tensor types, which the device does not offer",
}


def asked_names():
    names = {}
    for file in sorted(TORCH.rglob("*.py")):
        path = file.relative_to(TORCH).as_posix()
        if path.startswith(OTHERS):
            continue
        text = file.read_text(errors="ignore")
        for pattern in ASKED:
            for found in pattern.finditer(text):
                names.setdefault(found[1], path)
    return names


def test_every_name_that_torchs_python_asks_of_a_device_module_is_there():
    names = asked_names()
    assert {"_initialized", "get_rng_state", "synchronize", "get_amp_supported_dtype"} <= set(names)
    missing = {n: where for n, where in names.items() if not hasattr(torch.xhal, n)}
    assert set(missing) <= set(NOT_GIVEN), {
        n: where for n, where in missing.items() if n not in NOT_GIVEN
    }


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        torch.xhal.no_such_name  # noqa: B018
    assert torch.xhal._initialized is True
    assert torch.xhal._get_generator(torch.device("xhal:0")) is not None


# ---- activation checkpointing --------------------------------------------------------------------


class Block(nn.Module):
    """Dropout twice: of activations and of attention weights."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.qkv(x).view(2, 6, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, dropout_p=0.4).transpose(1, 2).reshape(2, 6, 16)
        return F.dropout(self.out(x), 0.5, training=True)


def gradients(block, x, call):
    torch.manual_seed(7)
    x = x.clone().requires_grad_()
    block.zero_grad()
    call(block, x).pow(2).sum().backward()
    return [x.grad.clone()] + [p.grad.clone() for p in block.parameters()]


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_drops_the_same_elements_again(reentrant):
    block, x = Block().to("xhal"), torch.randn(2, 6, 16, device="xhal")
    plain = gradients(block, x, lambda block, x: block(x))
    again = gradients(
        block,
        x,
        lambda block, x: torch.utils.checkpoint.checkpoint(block, x, use_reentrant=reentrant),
    )
    for a, e in zip(again, plain):
        assert torch.equal(a, e)


def test_checkpointing_without_a_device_tensor_among_its_arguments_does_too():
    block, x = Block().to("xhal"), torch.randn(2, 6, 16)
    # The state of the device's random numbers is kept although only the host is to be seen.
    plain = gradients(block, x, lambda block, x: block(x.to("xhal")))
    again = gradients(
        block,
        x,
        lambda block, x: torch.utils.checkpoint.checkpoint(
            lambda x: block(x.to("xhal")), x, use_reentrant=False
        ),
    )
    for a, e in zip(again, plain):
        assert torch.equal(a, e)


def test_checkpointing_without_a_device_tensor_keeps_autocast():
    linear, seen = nn.Linear(4, 4).to("xhal"), []

    def run(x):
        seen.append(torch.is_autocast_enabled("xhal"))  # first: recomputing stops early
        return linear(x.to("xhal"))

    x = torch.ones(2, 4, requires_grad=True)
    with torch.autocast("xhal", dtype=torch.bfloat16):
        y = torch.utils.checkpoint.checkpoint(run, x, use_reentrant=False)
    y.float().sum().backward()
    assert seen == [True, True]


FIRST_USE = """
import torch
from torch.utils.checkpoint import checkpoint
x = torch.ones(1000, requires_grad=True)
def drop(x):
    return torch.nn.functional.dropout(x.to("xhal"), 0.5)
y = checkpoint(drop, x, use_reentrant=False)
y.sum().backward()
assert torch.equal((y != 0).cpu(), x.grad != 0)
print("the same")
"""


def test_checkpointing_as_the_first_use_of_the_device_drops_the_same_elements(python):
    result = python("-c", FIRST_USE)
    assert "the same" in result.stdout, result.stderr[-2000:]


# ---- processes -----------------------------------------------------------------------------------

QUEUE = """
import sys, warnings
import torch
import torch.multiprocessing as mp

def double(queue, answers):
    x = queue.get(timeout=200)
    answers.put((x * 2, torch.nn.Parameter(x)))

if __name__ == "__main__":
    context = mp.get_context("spawn")
    queue, answers = context.Queue(), context.Queue()
    child = context.Process(target=double, args=(queue, answers))
    child.start()
    x = torch.arange(6.0, device="xhal").view(2, 3).t()
    queue.put(x)
    doubled, parameter = answers.get(timeout=200)
    child.join()
    assert doubled.device.type == "xhal" and doubled.tolist() == (x * 2).tolist()
    assert isinstance(parameter, torch.nn.Parameter) and parameter.requires_grad
    assert x.tolist() == [[0, 3], [1, 4], [2, 5]]
    print("arrived")
"""


def test_a_device_tensor_arrives_through_a_queue_and_a_warning_says_it_is_a_copy(python, tmp_path):
    program = tmp_path / "queue_program.py"
    program.write_text(QUEUE)
    result = python(str(program))
    assert "arrived" in result.stdout, result.stderr[-3000:]
    assert "sent to another process as a copy" in result.stderr


def test_a_device_storage_alone_is_refused_when_it_is_pickled():
    from multiprocessing.reduction import ForkingPickler

    with pytest.raises(RuntimeError, match="Cannot pickle xhal storage"):
        ForkingPickler.dumps(torch.ones(2, device="xhal").untyped_storage())
    tensor = torch.ones(2, device="xhal", requires_grad=True) * 2
    with pytest.raises(RuntimeError, match="non-leaf"):
        ForkingPickler.dumps(tensor)


# ---- profiles ------------------------------------------------------------------------------------

PROFILE = """
import torch
from torch.profiler import ProfilerActivity, profile
with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.PrivateUse1]) as p:
    torch.ones(64, 64, device="xhal").mm(torch.ones(64, 64, device="xhal")).sum().item()
rows = [e for e in p.profiler.kineto_results.events() if e.name().startswith("xhal::")]
print("rows", len(rows))
"""


def test_the_first_profile_of_a_process_has_rows(python):
    result = python("-c", PROFILE)
    assert int(result.stdout.split("rows ")[1]) > 0, result.stderr[-2000:]


STATISTICS = """
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
dist.init_process_group("xhal", store=dist.HashStore(), rank=0, world_size=1)
model = DistributedDataParallel(torch.nn.Linear(64, 64).to("xhal"))
for _ in range(12):
    model(torch.ones(16, 64, device="xhal")).sum().backward()
print("forward", model._get_ddp_logging_data()["avg_forward_compute_time"])
dist.destroy_process_group()
"""


def test_distributed_data_parallel_has_times(python):
    result = python("-c", STATISTICS)
    assert int(result.stdout.split("forward ")[1]) > 0, result.stderr[-2000:]
    assert "Time stats" not in result.stderr


# ---- small things --------------------------------------------------------------------------------


def test_a_tensor_goes_through_dlpack_to_torch_itself():
    x = torch.arange(4.0, device="xhal")
    y = torch.from_dlpack(x)
    y += 1
    assert x.tolist() == [1, 2, 3, 4] and y.device == x.device


def test_reloading_the_package_leaves_the_device_as_it_is():
    import importlib

    import torch_xhal

    assert importlib.reload(torch_xhal).state() == "loaded"
    assert (torch.ones(2, device="xhal") + 1).tolist() == [2, 2]


OTHER_LAYOUTS = {
    "to_sparse": lambda: torch.eye(3, device="xhal").to_sparse(),
    "sparse_coo_tensor": lambda: torch.sparse_coo_tensor(
        torch.tensor([[0, 1]]), torch.tensor([1.0, 2.0]), device="xhal", check_invariants=False
    ),
    "a sparse tensor to the device": lambda: torch.eye(3).to_sparse().to("xhal"),
    "to_sparse_csr": lambda: torch.eye(3, device="xhal").to_sparse_csr(),
    "quantize_per_tensor": lambda: torch.quantize_per_tensor(
        torch.ones(3, device="xhal"), 0.1, 0, torch.qint8
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", OTHER_LAYOUTS)
def test_other_layouts_are_refused_in_one_sentence(case):
    with pytest.raises(NotImplementedError, match="xhal has only dense strided tensors") as refusal:
        OTHER_LAYOUTS[case]()
    assert len(str(refusal.value).split("\nException raised")[0]) < 300


@pytest.mark.parametrize("p", [2.0, -0.5, float("nan")])
def test_a_probability_that_is_none_fails_the_draw(p):
    with pytest.raises(RuntimeError, match=r"not in \[0, 1\]"):
        torch.bernoulli(torch.tensor([0.5, p], device="xhal")).tolist()
    torch.xhal.recover()
