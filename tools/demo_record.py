# SPDX-License-Identifier: Apache-2.0
"""What the runs of ./dev demo leave behind, read back: steps, fallback reports, traces."""

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

RANKS = 2
BATCH_SIZE, SEQ_LEN, ACCUMULATION = 32, 64, 2
BATCH_BYTES = 2 * BATCH_SIZE // RANKS * SEQ_LEN * 8  # a rank's inputs and targets, as int64
PARAMETER_TENSORS = 28  # of starfire-tiny


class DemoError(Exception):
    """A run failed; the text tells which and where its output is."""


def read_rows(log_dir: Path) -> list[dict]:
    """The finished lines of train.jsonl, also while it is being written."""
    try:
        text = (log_dir / "train.jsonl").read_text()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@dataclass
class Curve:
    """What one training left in train.jsonl."""

    losses: list[float]
    validations: list[tuple[int, float]]
    tokens_per_second: float

    @staticmethod
    def of(log_dir: Path) -> "Curve":
        rows = read_rows(log_dir)
        if not rows:
            raise DemoError(f"{log_dir} holds no recorded steps")
        evaluated = [(row["step"], row["val_loss"]) for row in rows if row["val_loss"] is not None]
        # The first steps of a process are slower: they prepare operators.
        rates = [row["tokens_per_second"] for row in rows]
        return Curve([row["loss"] for row in rows], evaluated, statistics.median(rates))

    def training(self) -> float:
        """The mean of the last 20 steps: one step's loss is that of 32 sequences only."""
        return statistics.fmean(self.losses[-20:])

    def validation(self) -> float:
        return self.validations[-1][1]


@dataclass
class HostCopies:
    """Copies between host and device in the traced half of the run, all ranks together."""

    steps: int
    launches_a_step: float
    counts: dict[str, int]


def fallbacks(out: Path, expected: int) -> dict[str, int]:
    """Operators that ran on the host for want of a device operator, by name, all processes."""
    total: dict[str, int] = {}
    reports = sorted(out.glob("fallbacks-*.json"))
    for report in reports:
        contents = json.loads(report.read_text())
        for name, count in contents.get("fallbacks", contents).items():
            total[name] = total.get(name, 0) + count
    if len(reports) < expected:
        raise DemoError(
            f"{len(reports)} of {expected} processes wrote a fallback report ({out}/fallbacks-*)"
        )
    return total


_COPY = re.compile(r'"ts":([0-9.]+).*"bytes":(\d+),"direction":"(host to device|device to host)"')


def host_copies(out: Path, log_dir: Path, first_step: int) -> HostCopies:
    """Counts the traced copies between host and device, and explains them: a copy that neither
    feeds a batch, nor reads losses, nor saves a checkpoint, ... is "other"."""
    rows = [row for row in read_rows(log_dir) if row["step"] > first_step]
    evaluations = sum(row["val_loss"] is not None for row in rows)
    fetches = len({row["tokens_per_second"] for row in rows})
    # What a rank may copy after its first optimizer step (two batches); until then it starts up.
    limits = {
        "batch": len(rows),  # with those before that
        "loss": 2 * fetches + evaluations,  # up: the wish to stop; down: losses, validation
        "checkpoint": 4 * PARAMETER_TENSORS,  # a weight, Adam's m, v and step count
        "text": evaluations + 3,  # what is validated; the sample's noise, prompt and result
    }
    counts = dict.fromkeys(("start", *limits, "other"), 0)
    traces = sorted(out.glob("trace-*.json"))
    if len(traces) < RANKS:
        raise DemoError(f"{len(traces)} of {RANKS} ranks wrote a trace ({out}/trace-*.json)")
    launches = 0
    for trace in traces:
        launched, copies = read_trace(trace)
        launches += launched
        mine = dict.fromkeys(counts, 0)
        for size, direction in copies:
            up = direction == "host to device"
            if up and size == BATCH_BYTES:
                kind = "batch"
            elif mine["batch"] < 3:
                kind = "start"
            elif up:
                kind = "loss" if size <= 8 else "text"
            elif size <= 4 * (fetches + len(rows)):
                kind = "loss"
            else:
                kind = "checkpoint"
            mine[kind] += 1
        # Single values and the sample's bytes cannot be told by their size; move on what is over.
        for kind, next_kind in (("loss", "checkpoint"), ("checkpoint", "text")):
            over = max(0, mine[kind] - limits[kind])
            mine[kind] -= over
            mine[next_kind] += over
        for kind, limit in limits.items():
            over = max(0, mine[kind] - limit)
            mine[kind] -= over
            mine["other"] += over
        for kind, count in mine.items():
            counts[kind] += count
    return HostCopies(len(rows), launches / max(1, len(rows) * len(traces)), counts)


def read_trace(path: Path) -> tuple[int, list[tuple[int, str]]]:
    """The number of operator launches, and (bytes, direction) of host copies in order of time."""
    launches, copies = 0, []
    with open(path) as file:
        for line in file:
            if '"xhal_stream_copy"' in line:
                if match := _COPY.search(line):
                    copies.append((float(match[1]), int(match[2]), match[3]))
            elif '"xhal_op_launch"' in line:
                launches += 1
    return launches, [(size, direction) for _, size, direction in sorted(copies)]
