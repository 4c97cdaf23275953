# SPDX-License-Identifier: Apache-2.0
"""Unmodified scripts of other libraries in two ranks, and for longer than a few steps."""

import pytest
from libraries_run import expect_the_same, torchrun

ALL = ["accelerate_loop", "trainer_loop", "lightning_loop", "fabric_loop"]
ACCELERATE = (
    "-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "2",
    "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
)  # fmt: skip


@pytest.mark.parametrize("script", ALL)
def test_a_longer_run_has_the_losses_of_the_cpu(script):
    expect_the_same(script, steps=40)


def test_lightning_under_its_old_name():
    expect_the_same("lightning_loop", "--old-name", steps=20)


@pytest.mark.parametrize("devices", ["1", "2"])
@pytest.mark.parametrize("script", ["accelerate_loop", "trainer_loop"])
def test_two_ranks_under_torchrun_whether_or_not_each_has_a_device(script, devices):
    expect_the_same(script, ranks=2, launcher=torchrun(2), steps=20, XHAL_CPU_DEVICES=devices)


@pytest.mark.parametrize("script", ["accelerate_loop", "trainer_loop"])
def test_two_ranks_under_accelerate_launch(script):
    # On the CPU it starts several processes only with MPI.
    expect_the_same(
        script, ranks=2, launcher=ACCELERATE, cpu_launcher=torchrun(2), XHAL_CPU_DEVICES="2"
    )


@pytest.mark.parametrize("script", ["lightning_loop", "fabric_loop"])
def test_two_ranks_that_lightning_starts(script):
    expect_the_same(script, "--two", ranks=2, steps=20, XHAL_CPU_DEVICES="2")
