# SPDX-License-Identifier: Apache-2.0
"""Behaviour of examples/train.py on the CPU as its user sees it: options in, files and text out."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "examples" / "train.py"
DEADLINE_SECONDS = 150
SMALL = ["--device", "cpu", "--batch_size", "4", "--seq_len", "16", "--eval_interval", "1000"]


@pytest.fixture(scope="session")
def text(tmp_path_factory) -> Path:
    """A text of our own, so that no test depends on the default package being installed."""
    path = tmp_path_factory.mktemp("data") / "text.txt"
    words = "the card reads a packet from the ring and the host waits for its value".split()
    path.write_text(" ".join(words[(i * i + i // 7) % len(words)] for i in range(4000)))
    return path


def environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}
    # The reference is PyTorch's own CPU, whatever devices are installed beside it.
    return kept | {"TORCH_DEVICE_BACKEND_AUTOLOAD": "0", "OMP_NUM_THREADS": "1"}


def train(*options, ranks: int | None = None) -> subprocess.CompletedProcess:
    command = [sys.executable]
    if ranks:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    command += [str(TRAIN), *map(str, options)]
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=DEADLINE_SECONDS
    )


def finished(*options, ranks: int | None = None) -> subprocess.CompletedProcess:
    result = train(*options, ranks=ranks)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def rows(log_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (log_dir / "train.jsonl").read_text().splitlines()]


def losses(log_dir: Path) -> list[float]:
    return [row["loss"] for row in rows(log_dir)]


def checkpoints(log_dir: Path) -> list[str]:
    return sorted(path.name for path in log_dir.glob("checkpoint-*"))


def test_a_resumed_run_repeats_the_losses_of_an_uninterrupted_one_bit_for_bit(tmp_path, text):
    options = [*SMALL, "--data", text, "--max_steps", 8, "--precision", "bf16"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    finished(*options, "--save_interval", 5, "--log_dir", whole)
    parts.mkdir()
    (parts / "checkpoint-00000005.pt").write_bytes((whole / "checkpoint-00000005.pt").read_bytes())

    resumed = finished(*options, "--log_dir", parts, "--resume")

    assert "resumed at step 5" in resumed.stdout
    assert losses(parts) == losses(whole)[5:]
    assert rows(parts)[-1]["val_loss"] == rows(whole)[-1]["val_loss"]
    assert [row["step"] for row in rows(parts)] == [6, 7, 8]


def test_a_resumed_run_drops_the_records_of_steps_that_it_runs_again(tmp_path, text):
    options = [*SMALL, "--data", text, "--log_dir", tmp_path, "--max_steps", 6]
    finished(*options, "--save_interval", 4)
    before = rows(tmp_path)

    finished(*options, "--resume", tmp_path / "checkpoint-00000004.pt")

    assert [row["step"] for row in rows(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert losses(tmp_path) == [row["loss"] for row in before]


def test_ctrl_c_saves_a_checkpoint_that_resumes_to_the_same_losses(tmp_path, text):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    options = [*SMALL, "--data", text, "--max_steps", 200]
    process = subprocess.Popen(
        [sys.executable, str(TRAIN), *map(str, options), "--log_dir", str(stopped)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        for line in process.stdout:  # steps are running as soon as one is shown
            if line.startswith("step"):
                break
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()

    assert process.returncode == 128 + signal.SIGINT, output
    assert "go on with --resume" in output
    assert len(checkpoints(stopped)) == 1
    reached = len(rows(stopped))
    assert 0 < reached < 200

    finished(*options, "--log_dir", stopped, "--resume", "latest")
    finished(*options, "--log_dir", whole)
    assert losses(stopped) == losses(whole)


def test_only_the_last_two_checkpoints_are_kept_and_nothing_unfinished(tmp_path, text):
    finished(*SMALL, "--data", text, "--max_steps", 5, "--save_interval", 1, "--log_dir", tmp_path)
    assert checkpoints(tmp_path) == ["checkpoint-00000004.pt", "checkpoint-00000005.pt"]
    assert not list(tmp_path.glob("*.tmp"))


@pytest.fixture(scope="session")
def single(tmp_path_factory, text) -> Path:
    """A run of 10 steps in one process, which saved at 5."""
    log_dir = tmp_path_factory.mktemp("single")
    options = [*SMALL, "--data", text, "--max_steps", 10, "--save_interval", 5]
    finished(*options, "--log_dir", log_dir)
    return log_dir


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_two_ranks_with_accumulation_repeat_the_losses_of_one_process(
    tmp_path, text, single, parallel
):
    finished(
        *SMALL, "--data", text, "--max_steps", 10, "--log_dir", tmp_path,
        "--parallel", parallel, "--gradient_accumulation", 2, ranks=2,
    )  # fmt: skip
    assert losses(tmp_path) == pytest.approx(losses(single), rel=1e-4)


def test_a_checkpoint_of_one_process_resumes_sharded_over_two(tmp_path, text, single):
    finished(
        *SMALL, "--data", text, "--max_steps", 10, "--log_dir", tmp_path, "--parallel", "fsdp2",
        "--resume", single / "checkpoint-00000005.pt", ranks=2,
    )  # fmt: skip
    assert losses(tmp_path) == pytest.approx(losses(single)[5:], rel=1e-4)


def test_the_large_model_is_refused_with_its_memory_plan_before_anything_is_allocated(tmp_path):
    log_dir = tmp_path / "logs"
    result = train(
        *"--model_name starfire-13b --batch_size 1024 --gradient_accumulation 8".split(),
        *"--precision bf16 --save_interval 5000 --device cpu --log_dir".split(), log_dir,
    )  # fmt: skip
    assert result.returncode == 2
    for words in ("12.60 billion", "f32 master", "Adam m", "gradients", "activations", "sharded"):
        assert words in result.stderr
    assert "nothing was allocated" in result.stderr
    assert "Traceback" not in result.stderr
    assert not log_dir.exists()


BAD_ARGUMENTS = {
    "zero": (["--batch_size", "0"], "above 0"),
    "rate": (["--lr", "fast"], "above 0"),
    "precision": (["--precision", "fp8"], "choose from"),
    "model": (["--model_name", "starfire-1t"], "choose from"),
    "device": (["--device", "abacus"], "no such device"),
    "absent": (["--device", "cuda"], "no such device here"),
    "split": (["--batch_size", "5", "--gradient_accumulation", "2"], "multiple of 2"),
    "data": (["--data", "/nowhere/text"], "there is no file /nowhere/text"),
    "length": (["--seq_len", "9000"], "too short"),
    "resume": (["--resume"], "nothing to resume"),
    "file": (["--resume", "/nowhere/checkpoint"], "there is no checkpoint"),
}


@pytest.mark.parametrize("case", BAD_ARGUMENTS)
def test_bad_arguments_end_with_status_2_and_say_why(tmp_path, text, monkeypatch, capsys, case):
    options, words = BAD_ARGUMENTS[case]
    status, output = in_process(
        ["--device", "cpu", "--data", str(text), "--log_dir", str(tmp_path), *options],
        monkeypatch,
        capsys,
    )
    assert status == 2
    assert words in output


def test_a_new_run_does_not_touch_the_checkpoints_of_another(tmp_path, text, monkeypatch, capsys):
    (tmp_path / "checkpoint-00000003.pt").write_bytes(b"kept")
    options = ["--device", "cpu", "--data", str(text), "--log_dir", str(tmp_path)]
    status, output = in_process(options, monkeypatch, capsys)
    assert (status, "--resume" in output) == (2, True)
    assert checkpoints(tmp_path) == ["checkpoint-00000003.pt"]


def test_a_damaged_checkpoint_is_named(tmp_path, text, monkeypatch, capsys):
    damaged = tmp_path / "checkpoint-00000003.pt"
    damaged.write_bytes(b"not a checkpoint")
    options = [*SMALL, "--data", str(text), "--log_dir", str(tmp_path), "--resume"]
    status, output = in_process(options, monkeypatch, capsys)
    assert status == 2
    assert f"cannot read checkpoint {damaged}" in output


def test_a_missing_default_text_names_the_package_to_install(monkeypatch):
    from starfire import data

    monkeypatch.setattr(data, "DEFAULT_FILE", Path("/nowhere/jargon.txt.gz"))
    with pytest.raises(data.DataError, match="apt-get install .*jargon-text"):
        data.Text(data.DEFAULT_FILE, 16)


def in_process(options: list[str], monkeypatch, capsys) -> tuple[int, str]:
    """The status and error text of a run that ends before it trains: no new interpreter needed."""
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    import train as program

    try:
        status = program.main(options)
    except SystemExit as end:  # argparse's way out
        status = end.code
    return status, capsys.readouterr().err
