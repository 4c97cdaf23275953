# SPDX-License-Identifier: Apache-2.0
"""What a run shows and records while it goes on, and how it is asked to stop."""

import json
import os
import signal
import sys
import time
from pathlib import Path

PLAIN_EVERY = 10  # steps between lines where there is no terminal; runs up to 50 steps show each


class Progress:
    """Writes log_dir/train.jsonl, one line a step, and shows one updating line on a terminal, plain
    lines elsewhere. Ranks other than 0 have a silent one.
    """

    def __init__(self, log_dir: Path, max_steps: int, visible: bool):
        self.path = log_dir / "train.jsonl"
        self.max_steps = max_steps
        self.visible = visible
        self.terminal = sys.stdout.isatty()
        self.plain_every = 1 if max_steps <= 50 else PLAIN_EVERY
        self.validation: float | None = None
        self.last_loss: float | None = None
        self._line_open = False
        self._file = None

    def start(self, first_step: int):
        """Opens the record, keeping the lines of the steps before a resumed one."""
        if not self.visible:
            return
        kept = []
        if first_step and self.path.exists():
            for line in self.path.read_text().splitlines():
                row = _parsed(line)
                if row and row["step"] <= first_step:
                    kept.append(line + "\n")
                    self.validation = row["val_loss"] or self.validation
        unfinished = self.path.with_suffix(".tmp")
        unfinished.write_text("".join(kept))
        os.replace(unfinished, self.path)
        self._file = open(self.path, "a")

    def steps(self, first: int, losses, rates, tokens_per_second: float, validation: float | None):
        """Records finished steps `first`, first + 1, ...; `validation` belongs to the last."""
        self.last_loss = losses[-1]
        if validation is not None:
            self.validation = validation
        if not self.visible:
            return
        last = first + len(losses) - 1
        for step, (loss, rate) in enumerate(zip(losses, rates), first):
            row = {
                "step": step,
                "loss": loss,
                "val_loss": validation if step == last else None,
                "lr": rate,
                "tokens_per_second": round(tokens_per_second, 1),
            }
            self._file.write(json.dumps(row) + "\n")
            due = step % self.plain_every == 0 or step in (1, self.max_steps)
            if not self.terminal and (due or row["val_loss"] is not None):
                print(self._text(step, loss, rate, tokens_per_second, row["val_loss"]), flush=True)
        self._file.flush()
        if self.terminal:
            text = self._text(last, losses[-1], rates[-1], tokens_per_second, self.validation)
            self._update(text)

    def message(self, text: str):
        """A line that stays."""
        if not self.visible:
            return
        if self._line_open:
            print()
            self._line_open = False
        print(text, flush=True)

    def _text(self, step, loss, rate, tokens_per_second, validation) -> str:
        width = len(str(self.max_steps))
        shown = f"  validation {validation:.6f}" if validation is not None else ""
        return (
            f"step {step:>{width}}/{self.max_steps}  loss {loss:.6f}{shown}  lr {rate:.2e}  "
            f"{tokens_per_second:,.0f} tokens/s"
        )

    def _update(self, text: str):
        print(f"\r{text}\033[K", end="", flush=True)
        self._line_open = True


def _parsed(line: str) -> dict | None:
    try:
        row = json.loads(line)
        return row if {"step", "val_loss"} <= row.keys() else None
    except (ValueError, AttributeError):  # a line cut short when the machine stopped
        return None


class StopRequest:
    """Notes the first SIGINT or SIGTERM, so that the run can save before it ends.

    A second Ctrl-C ends it at once. torchrun passes a Ctrl-C on to ranks that the terminal has sent
    it to already, so what follows within a second is the same one.
    """

    def __init__(self):
        self.signal: int | None = None
        self._noted = 0.0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def _note(self, number: int, _frame):
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._noted = number, now
        elif number == signal.SIGINT and now - self._noted > 1:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            raise KeyboardInterrupt
