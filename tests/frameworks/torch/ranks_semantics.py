# SPDX-License-Identifier: Apache-2.0
"""Run by test_distributed.py under torchrun on two ranks: what the backend xhal must never get
wrong without a word: layouts, tags, sizes, places, futures, groups made anew."""

import datetime
import itertools
import os
import re
import sys
import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.nn.parallel import DistributedDataParallel

RANK = int(os.environ["RANK"])
PEER = 1 - RANK
DEVICE = torch.device("xhal", RANK)
PLACES = (DEVICE, torch.device("cpu"))


def values(rank, *shape, seed=0):
    generator = torch.Generator().manual_seed(100 * seed + rank)
    return torch.randint(-99, 100, shape, generator=generator).float()


# ---- layouts

LAYOUTS = {
    "contiguous": lambda t: t.contiguous(),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "strided": lambda t: torch.stack([t, -t], -1)[..., 0],
}
SHAPE = (2, 3, 4, 5)


def layouts():
    """Every collective with tensors laid out differently on the ranks and on both sides."""
    mine, theirs = values(RANK, *SHAPE), values(PEER, *SHAPE)
    both = [mine, theirs] if RANK == 0 else [theirs, mine]
    total = mine + theirs
    for place, names in itertools.product(PLACES, itertools.product(LAYOUTS, repeat=2)):
        lay = LAYOUTS[names[RANK]]
        other = LAYOUTS[names[PEER]]

        def given(tensor, lay=lay, place=place):
            return lay(tensor.to(place, copy=True))

        def taken(shape=SHAPE, lay=other, place=place):
            return lay(torch.full(shape, -1000.0, device=place))

        def expect(what, actual, expected, place=place, names=names):
            assert torch.equal(actual.cpu(), expected), (what, place, names)

        x = given(mine)
        dist.broadcast(x, 1)
        expect("broadcast", x, both[1])
        x = given(mine)
        dist.all_reduce(x)
        expect("all_reduce", x, total)
        x = given(mine)
        dist.reduce(x, 1)
        expect("reduce", x, total if RANK == 1 else mine)
        parts = [taken(), given(torch.zeros(SHAPE))]
        dist.all_gather(parts, given(mine))
        expect("all_gather", torch.stack([p.cpu() for p in parts]), torch.stack(both))
        whole = taken((4, 3, 4, 5))
        dist.all_gather_into_tensor(whole, given(mine))
        expect("all_gather_into_tensor", whole, torch.cat(both))
        parts = [taken(), taken()] if RANK == 0 else None
        dist.gather(given(mine), parts, 0)
        if RANK == 0:
            expect("gather", torch.stack([p.cpu() for p in parts]), torch.stack(both))
        x = taken()
        dist.scatter(x, [given(mine), given(total)] if RANK == 0 else None, 0)
        expect("scatter", x, both[0] if RANK == 0 else total)
        x = taken()
        dist.reduce_scatter(x, [given(mine), given(2 * mine)])
        expect("reduce_scatter", x, (RANK + 1) * total)
        x = taken()
        dist.reduce_scatter_tensor(x, given(torch.cat([mine, 2 * mine])))
        expect("reduce_scatter_tensor", x, (RANK + 1) * total)
        x = taken()
        dist.all_to_all_single(x, given(mine))
        expect("all_to_all_single", x, torch.stack([both[0][RANK], both[1][RANK]]))
        parts = [taken(), taken()]
        dist.all_to_all(parts, [given(mine), given(2 * mine)])
        expect("all_to_all", torch.stack([p.cpu() for p in parts]), (RANK + 1) * torch.stack(both))
        x = taken()
        if RANK == 0:
            dist.send(given(mine), 1)
        else:
            dist.recv(x, 0)
            expect("recv", x, theirs)
        x = taken()
        ops = [dist.P2POp(dist.irecv, x, PEER), dist.P2POp(dist.isend, given(mine), PEER)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        expect("batch_isend_irecv", x, theirs)
    # A lazily negated view: c10d itself refuses conjugated ones.
    negated = torch.complex(mine, theirs).conj().imag
    assert negated.is_neg()
    x = torch.zeros(SHAPE)
    dist.all_to_all_single(x, negated)
    assert torch.equal(x, -torch.stack([both[1][RANK], both[0][RANK]]))
    parameter = torch.nn.Parameter(LAYOUTS["channels_last"](mine.clone()))
    dist.broadcast(parameter, 0)
    assert torch.equal(parameter.detach(), both[0])


# ---- tags


def tags():
    for place in PLACES:
        tensors = {tag: torch.full((4,), float(tag), device=place) for tag in (1, 2, 3)}
        if RANK == 0:
            for work in [dist.isend(tensors[tag], 1, tag=tag) for tag in (1, 2, 3)]:
                work.wait()
            ops = [dist.P2POp(dist.isend, tensors[tag], 1, tag=tag) for tag in (1, 2)]
            for work in dist.batch_isend_irecv(ops):
                work.wait()
            continue
        into = {tag: torch.zeros(4, device=place) for tag in (1, 2, 3)}
        dist.recv(into[3], 0, tag=3)
        for work in [dist.irecv(into[tag], 0, tag=tag) for tag in (2, 1)]:
            work.wait()
        for tag in (1, 2, 3):
            assert into[tag].tolist() == [float(tag)] * 4, (place, tag)
        again = {tag: torch.zeros(4, device=place) for tag in (1, 2)}
        ops = [dist.P2POp(dist.irecv, again[tag], 0, tag=tag) for tag in (2, 1)]
        for work in dist.batch_isend_irecv(ops):
            work.wait()
        for tag in (1, 2):
            assert again[tag].tolist() == [float(tag)] * 4, (place, tag)


# ---- refusals


def ones(n, place, *shape):
    return torch.ones(n, device=place).view(*(shape or (n,)))


def exchange(out, x, out_splits=None, in_splits=None):
    dist.all_to_all_single(out, x, out_splits, in_splits)


def of_backend(name, *arguments):
    """Past torch's own checks of its arguments."""
    backend = dist.group.WORLD._get_backend(torch.device("cpu"))
    return getattr(backend, name)(*arguments)


# What is called, with an output `o` of the given length and the place `p`; what the error says.
REFUSED = [
    (4, lambda o, p: exchange(o, ones(4, p), [3, 3], [3, 3]), "doesn't match total dim 0 size"),
    (4, lambda o, p: exchange(o, ones(9000, p), [4500] * 2, [4500] * 2), "match total dim 0 size"),
    (9000, lambda o, p: exchange(o, ones(4, p), [4500] * 2, [4500] * 2), "match total dim 0 size"),
    (6, lambda o, p: exchange(o, ones(6, p), [2, 2], [2, 2]), "doesn't match total dim 0 size"),
    (6, lambda o, p: exchange(o, ones(6, p), [2] * 3, [2] * 3), "splits not equal to group size"),
    (6, lambda o, p: exchange(o, ones(6, p), [6], [6]), "splits not equal to group size"),
    (6, lambda o, p: exchange(o, ones(6, p), [-1, 7], [-1, 7]), "must be non-negative"),
    (5, lambda o, p: exchange(o, ones(5, p)), "does not divide equally across group size"),
    (5, lambda o, p: exchange(o, ones(5, p), None, [2, 3]), "does not divide equally"),
    (4, lambda o, p: exchange(o, ones(4, p).double()), "type"),
    (4, lambda o, p: exchange(o, ones(6, p)), "must have the same size, not 6 and 4 elements"),
    (8, lambda o, p: exchange(o.view(4, 2), ones(12, p, 4, 3), [2, 2], [2, 2]),
     "a row of the input has 3 elements, one of the output 2"),
    (4, lambda o, p: dist.all_gather([o[:2], o[2:]], ones(9000, p)),
     r"all_gather: tensor \d of the list, this rank's, has 2 elements"),
    (9000, lambda o, p: dist.all_gather([o[:4500], o[4500:]], ones(3, p)),
     r"this rank's, has 4500 elements and the tensor that goes with it 3"),
    (8, lambda o, p: dist.all_gather([o[:4], o[4:]], ones(4, p).double()), "type"),
    (4, lambda o, p: dist.all_gather([o], ones(4, p)), "the list has 1 tensors, the group 2 ranks"),
    (6, lambda o, p: dist.all_gather_into_tensor(o, ones(4, p)),
     "the output must have 2 times the input's 4 elements, it has 6"),
    (8, lambda o, p: dist.reduce_scatter(o, [ones(2, p)] * 2), "this rank's, has 2 elements"),
    (4, lambda o, p: dist.reduce_scatter(o, [ones(4, p).double()] * 2), "type"),
    (4, lambda o, p: dist.reduce_scatter_tensor(o, ones(7, p)),
     "the input must have 2 times the output's 4 elements, it has 7"),
    (4, lambda o, p: dist.all_to_all([o[:2], o[2:]], [ones(3, p), ones(3, p)]), "has 2 elements"),
    (4, lambda o, p: dist.all_to_all([o[:2], o[2:]], [ones(2, p).double()] * 2), "type"),
    (4, lambda o, p: dist.broadcast(o[:1].expand(4), 0), "share one place in memory"),
    (4, lambda o, p: of_backend("broadcast", o, 5), "root 5 is not a rank"),
    (4, lambda o, p: of_backend("allreduce_coalesced", [ones(2, DEVICE), ones(2, "cpu")]),
     "the call has tensors on xhal:. and on cpu; nothing was communicated"),
    (4, lambda o, p: of_backend("allreduce_coalesced", [ones(2, "xhal:0"), ones(2, "xhal:1")]),
     "the call has tensors on xhal:0 and on xhal:1; nothing was communicated"),
    (4, lambda o, p: dist.all_gather([ones(2, "cpu"), ones(2, DEVICE)], ones(2, DEVICE)),
     "tensors on|same device|device type"),
]  # fmt: skip


def refusals():
    guard = 1 << 12
    for place, (n, action, text) in itertools.product(PLACES, REFUSED):
        whole = torch.full((2 * guard + n,), -7.0, device=place)
        try:
            action(whole[guard : guard + n], place)
            torch.xhal.synchronize()
        except (RuntimeError, ValueError) as error:
            assert re.search(text, str(error)), (text, str(error))
        else:
            raise AssertionError(f"accepted on {place}: {text}")
        assert (whole == -7).all(), f"memory was written: {text}"
    for place in PLACES:  # nothing was begun: the group is as it was
        x = torch.ones(3, device=place)
        dist.all_reduce(x)
        assert x.tolist() == [2.0] * 3


def mismatches():
    """Ranks that disagree: an error on every rank, from the call or from the stream."""
    calls = {
        "length": lambda p, g: dist.all_reduce(torch.ones(4 - RANK, device=p), group=g),
        "type": lambda p, g: dist.all_reduce(
            torch.ones(4, device=p, dtype=(torch.float32, torch.int32)[RANK]), group=g
        ),
        "operation": lambda p, g: dist.all_reduce(
            torch.ones(4, device=p), (dist.ReduceOp.SUM, dist.ReduceOp.MAX)[RANK], group=g
        ),
        "root": lambda p, g: dist.broadcast(torch.ones(4, device=p), RANK, group=g),
        "call": lambda p, g: (dist.all_reduce, lambda t, group: dist.broadcast(t, 0, group=group))[
            RANK
        ](torch.ones(4, device=p), group=g),
        "splits": lambda p, g: dist.all_to_all_single(
            torch.ones(4, device=p), torch.ones(4, device=p), [1, 3], [1, 3], group=g
        ),
    }
    for place, (name, call) in itertools.product(PLACES, calls.items()):
        group = dist.new_group(backend="xhal")
        try:
            call(place, group)
            torch.xhal.synchronize()
        except RuntimeError as error:
            assert "mismatch" in str(error), (name, place, str(error))
            torch.xhal.recover()
        else:
            raise AssertionError(f"no rank may go on: {name} on {place}")


# ---- the same bits


def flush_denormal():
    x = torch.ones(16, device=DEVICE)
    dist.all_reduce(x)
    torch.xhal.synchronize()
    assert torch.set_flush_denormal(True)
    subnormal = torch.full((16,), 0x400, dtype=torch.int32).view(torch.float32)
    for _ in range(100):
        x = subnormal.to(DEVICE)
        dist.all_reduce(x)
        assert x.cpu().view(torch.int32).tolist() == [0x800] * 16


# ---- host and device, background and training


def host_and_device_orders():
    """Operations of the host and of the device need no common order; nor do those of threads."""
    for _ in range(20):
        on_device, on_host = torch.ones(1000, device=DEVICE), torch.ones(1000)
        order = (on_device, on_host) if RANK == 0 else (on_host, on_device)
        for work in [dist.all_reduce(tensor, async_op=True) for tensor in order]:
            work.wait()
        assert on_device.tolist() == on_host.tolist() == [2.0] * 1000
    folder = [tempfile.mkdtemp() if RANK == 0 else None]
    dist.broadcast_object_list(folder, 0)
    state = {"x": torch.full((1 << 16,), 1.0, device=DEVICE), "h": torch.full((1 << 16,), 2.0)}
    saving = dcp.async_save(state, checkpoint_id=folder[0])
    state["x"].fill_(-1), state["h"].fill_(-1)
    for _ in range(100):  # training goes on meanwhile
        gradient = torch.ones(3000, device=DEVICE)
        dist.all_reduce(gradient)
        assert gradient[-1].item() == 2
    saving.result()
    back = {"x": torch.zeros(1 << 16, device=DEVICE), "h": torch.zeros(1 << 16)}
    dcp.load(back, checkpoint_id=folder[0])
    assert (back["x"] == 1).all() and (back["h"] == 2).all()


# ---- futures


def futures():
    x = torch.ones(1 << 18)
    asked = []
    work = dist.all_reduce(x, async_op=True)
    future = work.get_future().then(
        lambda _: asked.append((work.is_completed(), work.is_success(), work.wait()))
    )
    future.wait()
    assert asked == [(True, True, True)]
    for _ in range(50):
        work = dist.all_reduce(x, async_op=True)
        work.get_future().then(lambda _: sum(range(100)))
        while not work.is_completed():
            pass
    model = DistributedDataParallel(torch.nn.Linear(300, 300))

    def hook(_, bucket):
        work = dist.all_reduce(bucket.buffer(), async_op=True)

        def done(_):
            assert work.is_completed() and work.is_success()
            return bucket.buffer() / 2

        return work.get_future().then(done)

    model.register_comm_hook(None, hook)
    for _ in range(5):
        model(torch.randn(8, 300)).sum().backward()
    group = dist.new_group(backend="xhal")
    future = dist.irecv(torch.ones(4), PEER, group=group).get_future()  # nobody sends
    dist.barrier()
    dist.destroy_process_group(group)
    del group
    try:
        future.wait()
    except RuntimeError as error:
        assert "destroyed" in str(error) or "has left" in str(error), str(error)
    else:
        raise AssertionError("nothing was received")


# ---- groups made anew


def groups_made_anew():
    """Under torchrun the store outlives the groups, and the groups have the same names again."""
    for i in range(4):
        subgroup = dist.new_group([0, 1], backend="xhal")
        for group, place in itertools.product((None, subgroup), PLACES):
            x = torch.full((1000,), RANK + 1.0, device=place)
            dist.all_reduce(x, group=group)
            assert x[0].item() == 3
        dist.destroy_process_group()
        dist.init_process_group("xhal", timeout=datetime.timedelta(seconds=60 + i))


def main():
    torch.xhal.set_device(DEVICE)
    dist.init_process_group("xhal", timeout=datetime.timedelta(seconds=60))
    for what in sys.argv[1:]:
        globals()[what]()
        print(f"rank {RANK}: {what} is right", flush=True)
    dist.barrier()
    sys.stdout.flush()
    os._exit(0)


main()
