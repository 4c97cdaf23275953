# SPDX-License-Identifier: Apache-2.0
"""Bytes of a text file as training data; the last tenth is held out for validation."""

import gzip
from pathlib import Path

import torch

from .model import VOCABULARY

DEFAULT_FILE = Path("/usr/share/doc/jargon-text/jargon.txt.gz")
DEFAULT_PACKAGE = "jargon-text"  # the Jargon File, public domain: 1.7 MB of English prose

EVAL_WINDOWS = 256


class DataError(Exception):
    """The data file is missing or unusable; the text tells what to do."""


class Text:
    def __init__(self, path: Path, seq_len: int):
        contents = _read(path)
        split = len(contents) - len(contents) // 10
        self.path = path
        self.seq_len = seq_len
        self.train = torch.frombuffer(bytearray(contents[:split]), dtype=torch.uint8)
        self.held_out = torch.frombuffer(bytearray(contents[split:]), dtype=torch.uint8)
        if len(self.held_out) <= seq_len:
            raise DataError(
                f"{path} is too short: its held-out tenth has {len(self.held_out)} bytes, and a "
                f"sequence needs {seq_len + 1}. Use a longer file or a smaller --seq_len."
            )

    def step_batch(self, step: int, batch_size: int, seed: int) -> torch.Tensor:
        """The inputs and targets of one optimizer step: [2, batch_size, seq_len].

        A function of (seed, step) alone: nothing to save for a resumed run, and the same sequences
        for any number of ranks or accumulation steps.
        """
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        last = len(self.train) - self.seq_len
        starts = torch.randint(last, (batch_size,), generator=generator)
        return self._windows(self.train, starts)

    def eval_batch(self) -> torch.Tensor:
        """Up to EVAL_WINDOWS windows, evenly spread over the held-out part: [2, n, seq_len]."""
        last = len(self.held_out) - self.seq_len - 1
        count = min(EVAL_WINDOWS, last // self.seq_len + 1)
        starts = torch.arange(count) * last // max(count - 1, 1)
        return self._windows(self.held_out, starts)

    def _windows(self, source: torch.Tensor, starts: torch.Tensor) -> torch.Tensor:
        offsets = starts[:, None] + torch.arange(self.seq_len)
        return torch.stack((source[offsets], source[offsets + 1])).long()


def _read(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DataError(_missing(path)) from None
    except (OSError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}") from None


def _missing(path: Path) -> str:
    if path != DEFAULT_FILE:
        return f"there is no file {path}; name another with --data, or leave --data out"
    # Slim container images tell dpkg to drop /usr/share/doc, hence the option.
    keep = f"--path-include=/usr/share/doc/{DEFAULT_PACKAGE}/*"
    return (
        f"the default text {path} is not there; the Debian package {DEFAULT_PACKAGE} brings it:\n"
        f"  apt-get install --reinstall -o Dpkg::Options::='{keep}' {DEFAULT_PACKAGE}\n"
        "  Or name a text of your own with --data FILE."
    )


def encode(text: str) -> list[int]:
    return list(text.encode())


def decode(tokens: list[int]) -> str:
    return bytes(token % VOCABULARY for token in tokens).decode(errors="replace")
