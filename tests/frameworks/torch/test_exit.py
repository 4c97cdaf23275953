# SPDX-License-Identifier: Apache-2.0
"""How a process that uses the device ends: at once, with its own status, whatever is queued."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

# One device with all cores: work of a device with one core is done before its launch returns.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
ENVIRONMENT.pop("XHAL_CPU_DEVICES", None)
DEADLINE_SECONDS = 120
QUEUED = 300

several_cores = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="nothing is queued")

TRAIN = """
import torch
layer = torch.nn.Linear(64, 64, device="xhal")
optimizer = torch.optim.SGD(layer.parameters(), 0.1)
class Twice(torch.autograd.Function):  # a node that belongs to Python
    forward = staticmethod(lambda context, x: x * 2)
    backward = staticmethod(lambda context, grad: grad * 2)
for _ in range(3):
    optimizer.zero_grad()
    Twice.apply(layer(torch.ones(8, 64, device="xhal"))).square().sum().backward()
    optimizer.step()
print("done", flush=True)
"""


def start(code, **options):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def ended(process):
    """Status, output and error text."""
    try:
        out, err = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
    return process.returncode, out, err


def two_trainings_at_once(times):
    for _ in range(times):
        for process in [start(TRAIN), start(TRAIN)]:
            assert ended(process) == (0, "done\n", "")


def test_two_trainings_at_once_end_without_an_abort():
    two_trainings_at_once(5)


@pytest.mark.slow
def test_two_hundred_times_two_trainings_at_once_end_without_an_abort():
    two_trainings_at_once(200)


# One product takes tens of milliseconds; what is queued, half a minute.
QUEUE = """
import os, signal, sys, threading, time, torch
a = torch.randn(1000, 1000, device="xhal") * 1e-3
torch.xhal.synchronize()
for _ in range(300):
    b = a @ a
print(time.time(), flush=True)
"""


def seconds_after_main(process):
    """How long a process stayed after its main program had printed the time; and its status."""
    status, out, err = ended(process)
    return time.time() - float(out.split()[0]), status, err


def needed_by_the_queue():
    a = torch.randn(1000, 1000, device="xhal")
    torch.xhal.synchronize()
    start_of_one = time.monotonic()
    (a @ a).sum().item()
    return QUEUED * (time.monotonic() - start_of_one)


@several_cores
def test_queued_work_is_dropped_at_exit():
    stayed, status, err = seconds_after_main(start(QUEUE))
    assert (status, err) == (0, "")
    assert stayed < needed_by_the_queue() / 2 + 5


@several_cores
def test_ctrl_c_does_not_wait_for_the_queue():
    process = start(QUEUE + "time.sleep(1000)\n")
    line = process.stdout.readline()
    process.send_signal(signal.SIGINT)
    begun = time.time()
    status, _, err = ended(process)
    assert line and status == -signal.SIGINT and err.rstrip().endswith("KeyboardInterrupt")
    assert time.time() - begun < needed_by_the_queue() / 2 + 5


def test_daemon_threads_that_compute_do_not_keep_the_process():
    code = """
import threading, torch
def compute(begun):
    a = torch.randn(200, 200, device="xhal")
    while True:
        a = (a @ a) * 1e-3
        begun.set()
events = [threading.Event() for _ in range(4)]
for event in events:
    threading.Thread(target=compute, args=(event,), daemon=True).start()
for event in events:
    event.wait()
print("main ends", flush=True)
"""
    for _ in range(3):
        assert ended(start(code)) == (0, "main ends\n", "")


@several_cores
def test_a_program_that_never_waits_does_not_fill_the_memory_with_launches():
    code = """
import torch
a = torch.randn(1200, 1200, device="xhal") * 1e-3
x, y = torch.zeros(4096, device="xhal"), torch.ones(4096, device="xhal")
torch.xhal.synchronize()
for _ in range(20):
    a = a @ a
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
for _ in range(200_000):
    x.add_(y)
print(resident() - before < 16 << 20, x[0].item(), flush=True)
"""
    assert ended(start(code)) == (0, "True 200000.0\n", "")


def test_a_backward_pass_that_begins_after_the_end_is_refused():
    code = """
import atexit
def late():
    try:
        loss.backward(one)
    except RuntimeError as error:
        print("refused:", error, flush=True)
atexit.register(late)  # before torch is imported: called last
import torch
x = torch.ones(3, device="xhal", requires_grad=True)
(x * 2).sum().backward()
loss, one = (x * 2).sum(), torch.ones((), device="xhal")
"""
    status, out, err = ended(start(code))
    assert (status, err) == (0, "") and out.startswith("refused:") and "exiting" in out
