# SPDX-License-Identifier: Apache-2.0
"""What a captured graph owns: its memory on every stream, its random numbers, and how it ends."""

import gc
import threading

import pytest
import torch

if not hasattr(torch.accelerator, "Graph"):
    pytest.skip("torch older than 2.13 has no graphs", allow_module_level=True)

ELEMENTS = 1 << 16


def stream():
    return torch.Stream(device="xhal")


def captured(body, on=None, **options):
    """The graph of `body`, captured on a stream of its own, and what `body` returned."""
    body()  # whatever is made at first use is made now
    torch.xhal.synchronize()
    graph = torch.accelerator.Graph(**options)
    with on or stream():
        graph.capture_begin()
        out = body()
        graph.capture_end()
    return graph, out


def replayed(graph, on=None):
    with on or stream():
        graph.replay()
    torch.xhal.synchronize()


def fork_and_join(first, second, body):
    """Runs `body` on `second`, after what `first` has and before what it gets next."""
    event = torch.Event("xhal")
    event.record(first)
    event.wait(second)
    with second:
        out = body()
    event = torch.Event("xhal")
    event.record(second)
    event.wait(first)
    return out


# ---- memory


def test_what_a_side_stream_of_a_capture_allocates_is_private_to_the_graph():
    first, second = stream(), stream()
    x = torch.ones(ELEMENTS, device="xhal")
    torch.xhal.synchronize()
    graph = torch.accelerator.Graph()
    with first:
        graph.capture_begin()

        def on_side_stream():
            temporary = x * 2
            return temporary + 1

        out = fork_and_join(first, second, on_side_stream) * 3
        graph.capture_end()
    with second:  # would take the memory of the side stream's temporaries
        eager = [torch.full((ELEMENTS,), 7.0, device="xhal") for _ in range(4)]
    replayed(graph, first)
    assert bool((out.cpu() == 9).all())
    assert all(bool((tensor.cpu() == 7).all()) for tensor in eager)


def test_memory_that_a_side_stream_reads_is_not_reused_inside_the_capture():
    first, second = stream(), stream()
    x = torch.ones(ELEMENTS, device="xhal")
    torch.xhal.synchronize()
    graph = torch.accelerator.Graph()
    with first:
        graph.capture_begin()
        shared = x * 5
        address = shared.data_ptr()
        event = torch.Event("xhal")
        event.record(first)
        event.wait(second)
        with second:
            read = shared + 1
        shared.record_stream(second)
        del shared
        other = torch.full((ELEMENTS,), 100.0, device="xhal")
        assert other.data_ptr() != address
        event = torch.Event("xhal")
        event.record(second)
        event.wait(first)
        out = read + 0
        graph.capture_end()
    replayed(graph, first)
    assert bool((out.cpu() == 6).all())


def test_a_block_that_eager_work_of_a_captured_stream_still_reads_waits_for_the_captures_end():
    first, second = stream(), stream()
    large = torch.randn(600, 600, device="xhal")
    for _ in range(10):
        x = torch.full((ELEMENTS,), 3.0, device="xhal")
        torch.xhal.synchronize()
        with second:
            slow = large
            for _ in range(4):
                slow = slow @ large
            total = x.clone().sum()  # behind the products
        x.record_stream(second)
        graph = torch.accelerator.Graph()
        with first:
            graph.capture_begin()
            out = fork_and_join(first, second, lambda: torch.zeros(4, device="xhal"))
            del x
            reused = torch.full((ELEMENTS,), 9.0, device="xhal", requires_grad=False)
            graph.capture_end()
        eager = torch.full((ELEMENTS,), 9.0, device="xhal")  # on the stream x came from
        torch.xhal.synchronize()
        assert total.item() == 3.0 * ELEMENTS
        del out, reused, eager, graph


def test_outputs_that_outlive_their_graph_give_the_memory_back_with_the_last_tensor():
    torch.xhal.synchronize()
    torch.xhal.empty_cache()
    before = torch.xhal.memory_reserved()
    x = torch.ones(8 << 20, dtype=torch.uint8, device="xhal")
    kept = []
    for _ in range(4):
        graph, out = captured(lambda: x + 1)
        replayed(graph)
        kept.append(out)
        graph.reset()
        del graph, out
    assert torch.xhal.memory_reserved() - before >= 4 * (8 << 20)  # statistics see graphs' pools
    assert all(bool((out.cpu() == 2).all()) for out in kept)
    kept.clear()
    del x
    gc.collect()
    torch.xhal.empty_cache()
    assert torch.xhal.memory_reserved() <= before


def test_memory_stays_flat_while_graphs_are_captured_replayed_and_dropped():
    torch.xhal.synchronize()
    torch.xhal.empty_cache()
    before = torch.xhal.memory_reserved()
    x = torch.ones(1 << 18, device="xhal")
    most = 0
    with stream() as on:
        for step in range(1000):  # 4 MiB each
            on.synchronize()  # a capture begins on a stream that waits for nothing
            graph = torch.accelerator.Graph()
            graph.capture_begin()
            out = (x * 2).add_(torch.rand(8, device="xhal").sum())
            graph.capture_end()
            graph.replay()
            if step % 2:
                del graph, out  # the graph first
            else:
                del out, graph
            if step % 100 == 99:
                most = max(most, torch.xhal.memory_reserved())
    del x
    assert most < before + (256 << 20)
    torch.xhal.empty_cache()
    assert torch.xhal.memory_reserved() <= before


def test_graphs_share_the_pool_they_are_told_to():
    x = torch.ones(16, device="xhal")
    first, a = captured(lambda: x + 1)
    second, b = captured(lambda: x + 2, pool=first.pool())
    other, _ = captured(lambda: x + 3)
    assert first.pool() == second.pool() != other.pool()
    first.reset()
    replayed(second)
    assert b.tolist() == [3.0] * 16
    assert a.data_ptr() != b.data_ptr()


def test_pinned_memory_that_a_graph_reads_is_not_handed_out_while_the_graph_lives():
    source = torch.full((ELEMENTS,), 4.0).pin_memory()
    target = torch.zeros(ELEMENTS, device="xhal")
    graph, _ = captured(lambda: target.copy_(source, non_blocking=True))
    del source
    gc.collect()
    others = [torch.full((ELEMENTS,), 9.0).pin_memory() for _ in range(4)]
    target.zero_()
    torch.xhal.synchronize()
    replayed(graph)
    assert bool((target.cpu() == 4).all())
    del others


# ---- random numbers


def test_a_replay_draws_what_eager_code_would_draw_from_that_seed():
    graph, out = captured(lambda: torch.rand(8, device="xhal"))

    def replay(seed):
        torch.manual_seed(seed)
        replayed(graph)
        return out.cpu().clone()

    first, second, again = replay(1), replay(2), replay(1)
    assert torch.equal(first, again) and not torch.equal(first, second)
    torch.manual_seed(2)
    assert torch.equal(torch.rand(8, device="xhal").cpu(), second)


def test_every_replay_goes_on_where_the_generator_stands():
    graph, (a, b) = captured(
        lambda: (torch.rand(5, device="xhal"), torch.nn.functional.dropout(
            torch.ones(64, device="xhal"), 0.5)))  # fmt: skip
    torch.manual_seed(3)
    drawn = []
    for _ in range(3):
        replayed(graph)
        drawn += [a.cpu().clone(), b.cpu().clone()]
    torch.manual_seed(3)
    for step in range(3):
        assert torch.equal(torch.rand(5, device="xhal").cpu(), drawn[2 * step])
        kept = torch.nn.functional.dropout(torch.ones(64, device="xhal"), 0.5)
        assert torch.equal(kept.cpu(), drawn[2 * step + 1])


def test_random_numbers_of_a_side_stream_follow_the_seed_too():
    first, second = stream(), stream()

    def body():
        return fork_and_join(first, second, lambda: torch.rand(8, device="xhal"))

    graph, out = captured(body, on=first)
    drawn = []
    for seed in (1, 2, 1):
        torch.manual_seed(seed)
        replayed(graph, first)
        drawn.append(out.cpu().clone())
    replayed(graph, first)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[2], out.cpu())


def test_replays_on_two_streams_do_not_draw_the_same_numbers():
    large = torch.randn(400, 400, device="xhal")

    def body():
        slow = large
        for _ in range(3):
            slow = slow @ large
        return torch.rand(64, device="xhal")

    graph, out = captured(body)
    both = [stream(), stream()]
    torch.manual_seed(7)
    seen = []
    for step in range(6):
        with both[step % 2]:
            graph.replay()
            seen.append(out.clone())
            event = torch.Event("xhal")
            event.record(both[step % 2])
            event.wait(both[1 - step % 2])  # the next replay overwrites `out`
    torch.xhal.synchronize()
    assert len({tuple(one.tolist()) for one in seen}) == 6


REFUSED_IN_CAPTURE = {
    "seed": (lambda: torch.manual_seed(12345), "another seed"),
    "read": (lambda: torch.xhal.get_rng_state(), "reading the state"),
    "write": (lambda: torch.xhal.set_rng_state(torch.zeros(16, dtype=torch.uint8)), "the state"),
    "own": (
        lambda: torch.rand(3, device="xhal", generator=torch.Generator("xhal")),
        "own generator",
    ),
    "wait": (lambda: torch.accelerator.current_stream().synchronize(), "being captured"),
    "device": (lambda: torch.xhal.synchronize(), "being captured"),
    "second": (lambda: torch.accelerator.Graph().capture_begin(), "another graph"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED_IN_CAPTURE)
def test_what_a_graph_could_not_repeat_is_refused_in_its_capture(case):
    call, words = REFUSED_IN_CAPTURE[case]
    graph = torch.accelerator.Graph()
    with stream():
        graph.capture_begin()
        try:
            with pytest.raises(RuntimeError, match=words):
                call()
        finally:
            del graph
    assert torch.ones(2, device="xhal").sum().item() == 2


# ---- waits of the host, which a program catches and goes on


WAITS = {
    "item": lambda x, host: x.sum().item(),
    "truth": lambda x, host: bool((x > 0).all()),
    "to the host": lambda x, host: x.cpu(),
    "to the host, as it lies": lambda x, host: x.view(64, -1).t().cpu(),
    "into a host tensor": lambda x, host: host.copy_(x),
    "into an ordinary host tensor, non_blocking": lambda x, host: host.copy_(
        x, non_blocking=True
    ),
    "from an ordinary host tensor": lambda x, host: x.copy_(host),
    "from an ordinary host tensor, non_blocking": lambda x, host: x.copy_(
        host, non_blocking=True
    ),
    "from the host, converted": lambda x, host: x.copy_(host.double(), non_blocking=True),
    "from pinned memory, blocking": lambda x, host: x.copy_(host.pin_memory()),
    "a new tensor from the host": lambda x, host: host.to("xhal"),
    "a fallback": lambda x, host: torch.special.bessel_j0(x),
    "a storage": lambda x, host: x.untyped_storage().cpu(),
    "a checked random number": lambda x, host: torch.normal(0.0, x),
    "nonzero": lambda x, host: x.nonzero(),
    "a stream": lambda x, host: torch.accelerator.current_stream().synchronize(),
}


@pytest.mark.parametrize("case", WAITS)
def test_a_capture_in_which_a_wait_was_refused_makes_no_graph(case):
    host = torch.full((ELEMENTS,), 7.0)
    x = torch.full((ELEMENTS,), 1.5, device="xhal")
    torch.xhal.synchronize()
    graph = torch.accelerator.Graph()
    with stream():
        graph.capture_begin()
        doubled = x * 2
        with pytest.raises(RuntimeError, match="the stream is being captured"):
            WAITS[case](x, host)
        with pytest.raises(RuntimeError, match="the stream is being captured"):
            graph.capture_end()
        with pytest.raises(RuntimeError, match="holds no capture"):
            graph.replay()
    assert bool((host == 7).all())
    # Nothing of it is left: the same object takes the next capture.
    with stream():
        graph.capture_begin()
        doubled = x * 2
        graph.capture_end()
        graph.replay()
    torch.xhal.synchronize()
    assert doubled.sum().item() == 3 * ELEMENTS


def test_the_end_of_a_spoiled_capture_says_what_spoiled_it():
    x = torch.ones(4, device="xhal")
    torch.xhal.synchronize()
    graph = torch.accelerator.Graph()
    with stream():
        graph.capture_begin()
        for call in (x.sum().item, x.cpu):
            with pytest.raises(RuntimeError, match="before the capture or after the replay"):
                call()
        with pytest.raises(RuntimeError) as refusal:
            graph.capture_end()
    text = str(refusal.value)
    assert "there is no graph" in text and "reading one element" in text  # the first of the two


def test_a_copy_into_pinned_memory_is_captured():
    x = torch.ones(ELEMENTS, device="xhal")
    host = torch.zeros(ELEMENTS).pin_memory()
    graph, _ = captured(lambda: host.copy_(x, non_blocking=True))
    x.fill_(5)
    torch.xhal.synchronize()
    replayed(graph)
    assert bool((host == 5).all())


# ---- streams, threads, modes


def test_a_capture_leaves_the_default_stream_to_the_other_threads():
    before = torch.accelerator.current_stream()
    x = torch.ones(4, device="xhal")
    torch.xhal.synchronize()
    graph = torch.accelerator.Graph()
    with graph:
        assert torch.accelerator.current_stream() != before == torch.xhal.default_stream()
        y = x + 1
    assert torch.accelerator.current_stream() == before
    x.fill_(5)
    graph.replay()
    assert y.tolist() == [6.0] * 4


@pytest.mark.parametrize("on", ["default stream", "own stream"])
@pytest.mark.parametrize("mode", ["default", "global", "thread_local", "relaxed"])
def test_another_threads_eager_work_runs_while_a_graph_is_captured(mode, on):
    begun, done, seen = threading.Event(), threading.Event(), []

    def other():
        begun.wait()
        try:
            seen.append((torch.full((1000,), 7.0, device="xhal") + 1).sum().item())
        finally:
            done.set()

    thread = threading.Thread(target=other)
    thread.start()
    x = torch.ones(1000, device="xhal")
    torch.xhal.synchronize()
    graph = torch.accelerator.Graph(capture_error_mode=mode)
    with stream() if on == "own stream" else torch.xhal.current_stream():
        graph.capture_begin()
        y = x * 2
        begun.set()
        done.wait(60)
        graph.capture_end()
    thread.join()
    assert seen == [8000.0]
    replayed(graph)
    assert y.sum().item() == 2000


def test_a_backward_pass_is_captured_although_other_threads_run_it():
    layer = torch.nn.Linear(8, 8, device="xhal")
    x = torch.randn(4, 8, device="xhal")

    def step():
        layer.zero_grad(set_to_none=True)
        layer(x).square().sum().backward()
        return layer.weight.grad

    graph, grad = captured(step)
    x.copy_(torch.randn(4, 8))
    torch.xhal.synchronize()
    replayed(graph)
    replay = grad.cpu().clone()
    assert torch.allclose(step().cpu(), replay, atol=1e-5)
