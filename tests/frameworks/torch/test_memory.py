# SPDX-License-Identifier: Apache-2.0
"""Memory: who keeps it until a copy has run, what is counted, what comes back."""

import gc
import os

import pytest
import torch

MIB = 1 << 20


def slow_work():
    a = torch.randn(700, 700, device="xhal") * 1e-2
    for _ in range(6):
        a = a @ a
    return a


OTHER_OWNERS = {
    "numpy": lambda tensor: torch.from_numpy(tensor.numpy()),
    "dlpack": torch.from_dlpack,
    "buffer": lambda tensor: torch.frombuffer(tensor.numpy(), dtype=torch.float32),
}


@pytest.mark.parametrize("owner", OTHER_OWNERS)
def test_pinned_memory_under_another_owner_is_kept_until_the_copy_to_the_device_has_run(owner):
    for _ in range(4):
        source = OTHER_OWNERS[owner](torch.full((MIB,), 3.0).pin_memory())
        address = source.data_ptr()
        torch.xhal.synchronize()
        busy = slow_work()
        y = source.to("xhal", non_blocking=True)
        del source
        gc.collect()
        others = [torch.full((MIB,), 8.0).pin_memory() for _ in range(2)]
        torch.xhal.synchronize()
        assert bool((y.cpu() == 3).all()), address
        del busy, others


@pytest.mark.parametrize("owner", OTHER_OWNERS)
def test_pinned_memory_under_another_owner_is_kept_until_the_copy_from_the_device_has_run(owner):
    x = torch.full((MIB,), 3.0, device="xhal")
    for _ in range(4):
        target = OTHER_OWNERS[owner](torch.zeros(MIB).pin_memory())
        torch.xhal.synchronize()
        busy = slow_work()
        target.copy_(x, non_blocking=True)
        del target
        gc.collect()
        others = [torch.full((MIB,), 8.0).pin_memory() for _ in range(2)]
        torch.xhal.synchronize()
        assert all(bool((other == 8).all()) for other in others)
        del busy, others


def test_a_copy_from_memory_that_nobody_keeps_waits():
    source = torch.full((MIB,), 3.0)
    busy = slow_work()
    y = source.to("xhal", non_blocking=True)
    source.fill_(8)
    assert bool((y.cpu() == 3).all())
    del busy


WITHOUT_A_WAIT = {
    "small": lambda: torch.full((16,), 3.0),
    "cast": lambda: torch.full((MIB,), 3.0, dtype=torch.float64).pin_memory(),
    "transposed": lambda: torch.full((1024, 1024), 3.0).pin_memory().t(),
}


@pytest.mark.parametrize("case", WITHOUT_A_WAIT)
def test_a_copy_that_need_not_wait_does_not_and_keeps_the_values_of_the_call(case):
    a = torch.randn(1500, 1500, device="xhal") * 1e-2
    for _ in range(3):
        a @ a
    source = WITHOUT_A_WAIT[case]()
    torch.xhal.synchronize()
    for _ in range(30):  # seconds of work
        a @ a
    done = torch.xhal.current_stream().record_event()
    y = source.to("xhal", torch.float32, non_blocking=True)
    waited = done.query()
    if not source.is_pinned():
        source.fill_(8)  # pageable: its owner may do as it likes
    del source
    gc.collect()
    others = [torch.full((MIB,), 8.0).pin_memory() for _ in range(2)]
    assert not waited
    assert bool((y.cpu() == 3).all())
    del others


# ---- what is counted


def test_the_counters_of_torch_accelerator_are_those_of_the_tensors():
    accelerator = torch.accelerator
    torch.ones(4, device="xhal")
    torch.xhal.synchronize()
    before = accelerator.memory_stats()
    tensors = [torch.ones(MIB // 4, device="xhal") for _ in range(10)]
    del tensors
    after = accelerator.memory_stats()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["allocation.all.allocated"] == grown["allocation.all.freed"] == 10
    assert grown["allocated_bytes.all.allocated"] == grown["allocated_bytes.all.freed"] == 10 * MIB
    assert after["allocation.all.peak"] >= before["allocation.all.current"] + 10
    assert after["allocated_bytes.all.peak"] >= before["allocated_bytes.all.current"] + 10 * MIB
    assert min(value for value in after.values() if isinstance(value, int)) >= 0
    accelerator.reset_peak_memory_stats()
    accelerator.reset_accumulated_memory_stats()
    reset = accelerator.memory_stats()
    assert reset["allocation.all.allocated"] == reset["allocated_bytes.all.freed"] == 0
    assert reset["allocation.all.current"] == after["allocation.all.current"]
    assert reset["allocation.all.peak"] == reset["allocation.all.current"]
    for name in (
        "memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved",
    ):  # fmt: skip
        assert getattr(accelerator, name)() == getattr(torch.xhal, name)()


# ---- what comes back


def test_the_cache_can_be_emptied_right_after_the_device_is_done():
    torch.xhal.synchronize()
    torch.xhal.empty_cache()
    before = torch.xhal.memory_reserved()
    for _ in range(20):
        tensors = [torch.ones(MIB, device="xhal") * 2 for _ in range(10)]
        total = sum(tensors)
        del tensors, total
        torch.xhal.synchronize()
        torch.xhal.empty_cache()
        assert torch.xhal.memory_reserved() <= before + 4 * MIB


def test_sizes_that_grow_are_served_from_what_is_cached_and_free():
    total = torch.xhal.mem_get_info()[1]
    for _ in range(3):
        for share in (0.15, 0.2, 0.26, 0.33, 0.42):
            x = torch.empty(int(total * share), dtype=torch.uint8, device="xhal")
            x[:MIB].fill_(1)  # never touched as a whole: it is address space only
            y = x[:MIB].to(torch.float32)
            del x, y


def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_freed_pinned_memory_is_given_back():
    torch.ones(4).pin_memory()
    torch.xhal.empty_cache()
    before = resident()
    tensors = [torch.ones(64 * MIB, dtype=torch.uint8).pin_memory() for _ in range(3)]
    assert resident() - before > 150 * MIB
    del tensors
    torch.xhal.empty_cache()
    assert resident() - before < 30 * MIB
