# SPDX-License-Identifier: Apache-2.0
"""A seeded sample of the sweep. The seed is printed; a finding's line repeats it.

XHAL_SWEEP_SEED=N looks elsewhere.
"""

import os
import warnings

import pytest
import sweep


def test_random_calls_do_on_the_device_what_they_do_on_the_cpu(capsys):
    seed = os.environ.get("XHAL_SWEEP_SEED", "1")
    minutes = float(os.environ.get("XHAL_SWEEP_MINUTES", "3"))
    # The same calls on a fast machine as on a slow one, unless more time is given.
    rounds = None if "XHAL_SWEEP_MINUTES" in os.environ else 250
    with warnings.catch_warnings(), capsys.disabled():
        warnings.simplefilter("ignore")
        findings = sweep.sweep(seed, minutes, rounds=rounds)
    assert not findings, "\n".join(f"{f.text}\n  --case '{f.case}'" for f in findings)


def test_the_sweep_sees_a_planted_fault(monkeypatch):
    import torch
    from operators import Call
    from tensors import lying

    def wrong(x):
        return x + 1 if x.device.type == "cpu" else x.add(2)

    def draw(r):
        return Call(wrong, [lying(r, (2, 3), torch.float32)])

    monkeypatch.setitem(sweep.OPERATORS, "planted", draw)
    found = sweep.one("planted:1:1")
    assert found is not None and found.kind == "value"


def test_a_case_is_the_same_each_time():
    assert sweep.one("add:1:1") == sweep.one("add:1:1")
    with pytest.raises(SystemExit, match="there is no operator"):
        sweep.sweep("1", 0, "no such operator")
