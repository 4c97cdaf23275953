# SPDX-License-Identifier: Apache-2.0
"""Run by test_distributed.py under torchrun: the backend xhal beside gloo, in one process."""

import os
import sys

import torch
import torch.distributed as dist
import torch.nn.functional as F

ELEMENTS = 7


def tensor(rank, *shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(17 + rank)
    return torch.randint(-9, 10, shape or (ELEMENTS,), generator=generator).to(dtype)


def collectives(group, device, rank, size, dtype):
    """Every collective once; the results on the CPU, by name."""
    results = {}

    def mine(*shape):
        return tensor(rank, *shape, dtype=dtype).to(device)

    def empty(*shape):
        return torch.zeros(shape or (ELEMENTS,), dtype=dtype, device=device)

    x = mine()
    dist.broadcast(x, 1, group=group)
    results["broadcast"] = x
    for op in (dist.ReduceOp.SUM, dist.ReduceOp.MAX, dist.ReduceOp.MIN, dist.ReduceOp.PRODUCT):
        x = mine()
        dist.all_reduce(x, op, group=group)
        results[f"all_reduce {op}"] = x
    x = mine()
    dist.reduce(x, 1, group=group)
    results["reduce"] = x if rank == 1 else empty()
    parts = [empty() for _ in range(size)]
    dist.all_gather(parts, mine(), group=group)
    results["all_gather"] = torch.stack(parts)
    whole = empty(size * ELEMENTS)
    dist.all_gather_into_tensor(whole, mine(), group=group)
    results["all_gather_into_tensor"] = whole
    parts = [empty() for _ in range(size)] if rank == 0 else None
    dist.gather(mine(), parts, 0, group=group)
    results["gather"] = torch.stack(parts) if rank == 0 else empty()
    x = empty()
    shares = [mine(size, ELEMENTS)[i].clone() for i in range(size)] if rank == 0 else None
    dist.scatter(x, shares, 0, group=group)
    results["scatter"] = x
    x = empty()
    dist.reduce_scatter(x, list(mine(size, ELEMENTS).unbind()), group=group)
    results["reduce_scatter"] = x
    x = empty()
    dist.reduce_scatter_tensor(x, mine(size * ELEMENTS), group=group)
    results["reduce_scatter_tensor"] = x
    x = empty(size * 3)
    dist.all_to_all_single(x, mine(size * 3), group=group)
    results["all_to_all_single"] = x
    counts = [[1, 2], [3, 1]]  # counts[from][to]
    x = empty(counts[0][rank] + counts[1][rank], 2)
    dist.all_to_all_single(
        x, mine(sum(counts[rank]), 2), [c[rank] for c in counts], counts[rank], group=group
    )
    results["all_to_all_single uneven"] = x
    parts = [empty() for _ in range(size)]
    x = empty()
    if rank == 0:
        dist.send(mine(), 1, group=group)
    else:
        dist.recv(x, 0, group=group)
    results["send"] = x
    y = empty()
    requests = dist.batch_isend_irecv(
        [
            dist.P2POp(dist.irecv, y, 1 - rank, group),
            dist.P2POp(dist.isend, mine(), 1 - rank, group),
        ]
    )
    for request in requests:
        request.wait()
    results["exchange"] = y
    dist.barrier(group=group)
    return {name: value.cpu() for name, value in results.items()}


def uneven_lists(group, device, rank):
    parts = [torch.zeros(2 + 3 * i, device=device) for i in range(2)]
    dist.all_gather(parts, tensor(rank, 2 + 3 * rank).to(device), group=group)
    for i, part in enumerate(parts):
        assert torch.equal(part.cpu(), tensor(i, 2 + 3 * i)), part
    out = torch.zeros(1 + rank, device=device)
    dist.reduce_scatter(out, [torch.ones(1 + i, device=device) for i in range(2)], group=group)
    assert out.cpu().tolist() == [2.0] * (1 + rank)
    average = torch.full((3,), float(rank), device=device)
    dist.all_reduce(average, dist.ReduceOp.AVG, group=group)
    assert average.cpu().tolist() == [0.5] * 3


def all_collectives(device, rank, size):
    gloo = dist.new_group(backend="gloo")
    for dtype in (torch.float32, torch.int64, torch.bfloat16):
        for where in (device, "cpu"):
            expected = collectives(gloo, "cpu", rank, size, dtype)
            actual = collectives(None, where, rank, size, dtype)
            assert expected.keys() == actual.keys()
            for name, value in expected.items():
                assert torch.equal(actual[name], value), (name, dtype, where, actual[name], value)
    uneven_lists(None, device, rank)


def sync_batch_norm(device, rank, size):
    """Two ranks with half a batch each are one rank with all of it."""
    torch.xhal.reset_fallbacks()
    x, target = torch.randn(6, 3, 4, 5), torch.randn(6, 3, 4, 5)
    own = slice(0, 4) if rank == 0 else slice(4, 6)  # unequal shares
    whole = torch.nn.BatchNorm2d(3)
    whole.weight.data.uniform_(0.5, 1.5), whole.bias.data.uniform_(-1, 1)
    layer = torch.nn.SyncBatchNorm(3)
    layer.load_state_dict(whole.state_dict())
    layer.to(device)
    for _ in range(2):
        a = x.clone().requires_grad_()
        b = x[own].to(device).requires_grad_()
        expected, actual = whole(a), layer(b)
        torch.testing.assert_close(actual.cpu(), expected[own], rtol=1e-4, atol=1e-5)
        whole.zero_grad(), layer.zero_grad()
        F.mse_loss(expected, target, reduction="sum").backward()
        F.mse_loss(actual, target[own].to(device), reduction="sum").backward()
        torch.testing.assert_close(b.grad.cpu(), a.grad[own], rtol=1e-3, atol=1e-4)
        for parameter, reference in zip(layer.parameters(), whole.parameters()):
            dist.all_reduce(parameter.grad)
            torch.testing.assert_close(parameter.grad.cpu(), reference.grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer.running_mean.cpu(), whole.running_mean)
    torch.testing.assert_close(layer.running_var.cpu(), whole.running_var, rtol=1e-4, atol=1e-5)
    assert torch.xhal.fallbacks() == {}, torch.xhal.fallbacks()


def main():
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("xhal", rank)
    torch.xhal.set_device(device)
    torch.manual_seed(5)
    dist.init_process_group("xhal")
    {"collectives": all_collectives, "sync_batch_norm": sync_batch_norm}[sys.argv[1]](
        device, rank, size
    )
    dist.barrier()
    dist.destroy_process_group()
    print(f"rank {rank} is done", flush=True)


main()
