# SPDX-License-Identifier: Apache-2.0
"""Runs a script of libraries/ on xhal and on the CPU, and compares the losses."""

import importlib.util
import json
from pathlib import Path

import pytest
from conftest import run_python

SCRIPTS = Path(__file__).parent / "libraries"
NEEDS = {
    "accelerate_loop": ("accelerate",),
    "trainer_loop": ("accelerate", "transformers"),
    "lightning_loop": ("lightning", "pytorch_lightning"),
    "fabric_loop": ("lightning",),
}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def need(script):
    for library in NEEDS[script]:
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed: pip install -r requirements-libraries.txt")


def result(script, *arguments, launcher=(), **environment):
    """What the script printed last, and what it wrote to standard error."""
    words = [*launcher, str(SCRIPTS / f"{script}.py"), *arguments]
    run = run_python(*words, timeout=400, **{**OFFLINE, **environment})
    assert run.returncode == 0, run.stdout + run.stderr
    line = [line for line in run.stdout.splitlines() if line.startswith('{"device"')][-1]
    return json.loads(line), run.stderr


def torchrun(ranks):
    return ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks))


def expect_the_same(
    script, *arguments, ranks=1, launcher=(), cpu_launcher=None, steps=6, **environment
):
    """The same training on xhal and on the CPU: nothing but ``--cpu`` differs."""
    need(script)
    words = (str(steps), *arguments)
    here, _ = result(script, *words, launcher=launcher, **environment)
    there, _ = result(script, *words, "--cpu", launcher=cpu_launcher or launcher, **environment)
    assert (here["device"], there["device"]) == ("xhal", "cpu")
    assert (here["ranks"], there["ranks"]) == (ranks, ranks)
    assert len(here["losses"]) >= steps
    assert here["losses"] == pytest.approx(there["losses"], rel=0, abs=1e-5)

