# SPDX-License-Identifier: Apache-2.0
"""The unmodified training script on xhal prints the losses it prints on PyTorch's own CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TRAIN = ROOT / "examples" / "train.py"
STEPS = 50


def run(folder: Path, device: str, *options, ranks: int = 1, **variables) -> list[float]:
    """Losses of a run; the reference runs without the device, on PyTorch's own CPU."""
    report = folder / "fallbacks-%p.json"
    environment = dict(
        os.environ,
        OMP_NUM_THREADS="1",
        XHAL_VISIBLE_DEVICES="cpu",
        XHAL_CPU_DEVICES="2",
        XHAL_FALLBACK_REPORT=str(report),
        **variables
    )
    if device == "cpu":
        environment["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
    command = [sys.executable]
    if ranks > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    command += [
        str(TRAIN),
        "--device",
        device,
        "--max_steps",
        str(STEPS),
        "--eval_interval",
        "1000",
        "--seed",
        "3",
        "--save_interval",
        "1000",
        "--log_dir",
        str(folder / "log"),
        *options,
    ]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-4000:]
    for path in folder.glob("fallbacks-*.json"):
        assert json.loads(path.read_text())["fallbacks"] == {}, path.read_text()
    return [
        json.loads(line)["loss"]
        for line in (folder / "log" / "train.jsonl").read_text().splitlines()
    ]


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> list[float]:
    return run(tmp_path_factory.mktemp("cpu"), "cpu", "--precision", "fp32")


VARIANTS = {
    "plain": {},
    "guard": {"XHAL_CPU_GUARD": "1"},
    "validate": {"XHAL_LAYERS": "validate"},
    "chaos": {"XHAL_LAYERS": "chaos"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_losses_equal_those_of_pytorch_cpu(tmp_path, reference, name):
    losses = run(tmp_path, "xhal", "--precision", "fp32", **VARIANTS[name])
    assert len(losses) == STEPS
    assert losses == pytest.approx(reference, rel=1e-3)


def test_two_runs_are_bit_identical(tmp_path):
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    first, second = (run(folder, "xhal", "--precision", "fp32") for folder in folders)
    assert first == second


def test_bf16_follows_the_f32_reference(tmp_path, reference):
    assert run(tmp_path, "xhal", "--precision", "bf16") == pytest.approx(reference, rel=2e-2)


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_ranks_equal_two_ranks_of_gloo(tmp_path, parallel):
    for device in ("cpu", "xhal"):
        (tmp_path / device).mkdir()
    options = ["--precision", "fp32", "--parallel", parallel]
    expected = run(tmp_path / "cpu", "cpu", *options, ranks=2)
    assert run(tmp_path / "xhal", "xhal", *options, ranks=2) == pytest.approx(expected, rel=1e-4)
