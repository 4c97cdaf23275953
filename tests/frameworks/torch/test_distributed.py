# SPDX-License-Identifier: Apache-2.0
"""The c10d backend on two ranks."""

import pytest


@pytest.mark.parametrize("what", ["collectives", "sync_batch_norm"])
def test_two_ranks_agree_with_the_cpu(python, what):
    result = python(
        "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "ranks.py", what,
        XHAL_CPU_DEVICES="2",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stdout.count("is done") == 2
