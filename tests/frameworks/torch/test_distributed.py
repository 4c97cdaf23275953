# SPDX-License-Identifier: Apache-2.0
"""The c10d backend on two ranks."""

import signal
import subprocess
import sys

import pytest


def run_ranks(python, *arguments):
    result = python(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", *arguments,
        XHAL_CPU_DEVICES="2",
    )  # fmt: skip
    assert result.returncode == 0, result.stdout[-1000:] + result.stderr[-4000:]
    return result.stdout


@pytest.mark.parametrize("what", ["collectives", "sync_batch_norm"])
def test_two_ranks_agree_with_the_cpu(python, what):
    assert run_ranks(python, "ranks.py", what).count("is done") == 2


def expect_right(python, *what):
    said = run_ranks(python, "ranks_semantics.py", *what)
    assert said.count("is right") == 2 * len(what), said


def test_every_layout_is_communicated_as_if_it_were_contiguous(python):
    expect_right(python, "layouts")


def test_messages_go_to_the_receive_with_their_tag(python):
    expect_right(python, "tags")


def test_wrong_sizes_splits_and_places_are_refused_by_name_and_nothing_is_begun(python):
    expect_right(python, "refusals")


def test_ranks_that_disagree_get_an_error_on_every_rank(python):
    expect_right(python, "mismatches")


def test_flush_denormal_does_not_make_replicas_differ(python):
    expect_right(python, "flush_denormal")


def test_operations_of_the_host_do_not_mix_with_those_of_the_device(python):
    expect_right(python, "host_and_device_orders")


def test_a_callback_of_a_future_may_ask_its_work_anything(python):
    expect_right(python, "futures")


def test_groups_can_be_destroyed_and_made_again_over_one_store(python):
    expect_right(python, "groups_made_anew")


@pytest.mark.parametrize("what", ["init", "recv", "device barrier", "exit"])
def test_an_interrupted_rank_does_not_wait_for_its_peer(tmp_path, what):
    store = str(tmp_path / "store")

    def start(rank):
        return subprocess.Popen(
            [sys.executable, "rank_interrupted.py", str(rank), store, what],
            cwd=__file__.rpartition("/")[0],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    waiting = start(0)
    absent = None if what == "init" else start(1)
    try:
        assert waiting.stdout.readline() == "waits\n", waiting.stderr.read()
        if what != "exit":
            waiting.send_signal(signal.SIGINT)
        # The group's timeout is twenty minutes.
        _, error = waiting.communicate(timeout=240)
        assert "KeyboardInterrupt" in error, error
        assert waiting.returncode != 0
    finally:
        for process in (waiting, absent):
            if process is not None:
                process.kill()
                process.communicate()
