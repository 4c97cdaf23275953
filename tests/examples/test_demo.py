# SPDX-License-Identifier: Apache-2.0
"""How ./dev demo reads what its runs leave behind, and what it does not let pass."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import demo
import demo_record

STEPS = 40
FIRST_STEP = 20  # the run was stopped here; the rest is traced
FETCH_STEPS = 5  # losses were read so often


@pytest.fixture
def out(tmp_path) -> Path:
    """The files of a run that did all it should and nothing else."""
    log_dir = tmp_path / "device"
    log_dir.mkdir()
    rows = [
        {
            "step": step,
            "loss": 3 - step / 40,
            "val_loss": 2.0 if step % 10 == 0 else None,
            "lr": 1e-3,
            "tokens_per_second": 1000.0 + (step - 1) // FETCH_STEPS,
        }
        for step in range(1, STEPS + 1)
    ]
    (log_dir / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for rank in range(demo_record.RANKS):
        write_trace(tmp_path, rank, good_copies())
    for process in range(2 * demo_record.RANKS):
        (tmp_path / f"fallbacks-{process}.json").write_text('{"pid": 1, "fallbacks": {}}')
    return tmp_path


def good_copies() -> list[tuple[str, int]]:
    up, down = "host to device", "device to host"
    copies = [(up, 131072), (up, 512), (down, 8)]  # weights; what DDP agrees on
    for step in range(FIRST_STEP + 1, STEPS + 1):
        copies.append((up, demo_record.BATCH_BYTES))
        if step % FETCH_STEPS == 0:
            copies += [(up, 8), (down, 4 * (FETCH_STEPS + 2))]
        if step % 10 == 0:
            copies += [(up, 131072), (down, 4)]  # validation
    copies += 3 * demo_record.PARAMETER_TENSORS * [(down, 65536)]
    copies += demo_record.PARAMETER_TENSORS * [(down, 4)]  # Adam's step counts
    return [*copies, (up, 61440), (up, 512), (down, 512)]  # the sample


def write_trace(out: Path, rank: int, copies: list[tuple[str, int]]):
    """As the trace layer writes it: one call a line."""
    lines = []
    for time, (direction, size) in enumerate(copies):
        head = f'"ph":"X","pid":{rank},"tid":1,"ts":{time}.250,"dur":0.100'
        arguments = f'"args":{{"stream":1,"bytes":{size},"direction":"{direction}"}}'
        lines.append(f'{{"name":"xhal_stream_copy",{head},{arguments}}}')
        lines.append(f'{{"name":"xhal_op_launch",{head}}}')
    (out / f"trace-{rank}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


def copies_of(out: Path) -> demo_record.HostCopies:
    return demo_record.host_copies(out, out / "device", FIRST_STEP)


def test_every_copy_of_a_good_run_is_explained(out):
    ranks = demo_record.RANKS
    assert copies_of(out).counts == {
        "start": 3 * ranks,
        "batch": 20 * ranks,
        "loss": (2 * 4 + 2) * ranks,
        "checkpoint": 4 * demo_record.PARAMETER_TENSORS * ranks,
        "text": (2 + 3) * ranks,
        "other": 0,
    }


@pytest.mark.parametrize(
    "extra", [("device to host", 4), ("device to host", 1 << 20), ("host to device", 4)]
)
def test_a_copy_more_in_each_step_is_found(out, extra):
    copies = good_copies()
    for position in range(len(copies), 0, -1):
        if copies[position - 1][1] == demo_record.BATCH_BYTES:
            copies.insert(position, extra)
    write_trace(out, 0, copies)
    assert copies_of(out).counts["other"] >= 18  # of 20; two belong to the start


def test_a_rank_without_a_trace_is_not_taken_for_one_without_copies(out):
    (out / "trace-1.json").unlink()
    with pytest.raises(demo_record.DemoError, match="1 of 2 ranks wrote a trace"):
        copies_of(out)


def test_fallbacks_are_summed_over_processes_by_name(out):
    (out / "fallbacks-0.json").write_text('{"pid": 1, "fallbacks": {"aten::gelu": 2}}')
    (out / "fallbacks-3.json").write_text('{"pid": 4, "fallbacks": {"aten::gelu": 3}}')
    assert demo_record.fallbacks(out, 4) == {"aten::gelu": 5}


def test_a_missing_fallback_report_is_not_taken_for_none(out):
    (out / "fallbacks-3.json").unlink()
    with pytest.raises(demo_record.DemoError, match="3 of 4 processes"):
        demo_record.fallbacks(out, 4)


def outcome(**changes) -> demo.Outcome:
    good = {
        "device": "xhal", "steps": 40, "stopped_at_step": 20, "training_loss": 1.8,
        "validation_loss": 1.9, "tokens_per_second": 2000.0, "cpu_training_loss": 1.8,
        "cpu_validation_loss": 1.9, "cpu_tokens_per_second": 1000.0,
        "validation_difference": 0.0, "fallbacks": {},
        "host_copies": dict.fromkeys(demo.COPY_KINDS, 0), "traced_steps": 20,
        "launches_a_step": 500.0, "curve": "loss.png", "sample": "", "seconds": {"all": 1.0},
        "findings": [],
    }  # fmt: skip
    return demo.Outcome(**good | changes)


FINDINGS = {
    "loss": ({"validation_loss": 2.3}, "not below 2.2"),
    "nan": ({"validation_loss": float("nan")}, "not below 2.2"),
    "difference": ({"validation_difference": 0.03}, "differs by 3.00%"),
    "fallback": ({"fallbacks": {"aten::gelu": 7}}, "7 operator calls fell back"),
    "copies": ({"host_copies": dict.fromkeys(demo.COPY_KINDS, 0) | {"other": 2}}, "2 host copies"),
}


@pytest.mark.parametrize("case", FINDINGS)
def test_what_is_not_as_it_must_be_is_named(case):
    changes, words = FINDINGS[case]
    judged = outcome(**changes)
    demo.judge(judged)
    assert len(judged.findings) == 1
    assert words in judged.findings[0]


def test_a_good_run_has_no_findings_and_its_table_says_none():
    judged = outcome()
    demo.judge(judged)
    assert judged.findings == []
    assert "none" in demo.table(judged)


def test_without_the_built_tools_it_says_how_to_get_them(tmp_path):
    result = subprocess.run(
        [sys.executable, demo.__file__, "--out", str(tmp_path / "out")],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "start this by ./dev demo" in result.stderr
