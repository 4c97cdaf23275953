# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one file holds whole, unsharded CPU tensors, so it loads on any device and layout.

A file appears complete or not at all (written beside, synced, renamed); the last two are kept.
"""

import os
import re
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

KEEP = 2
_NAME = re.compile(r"checkpoint-(\d+)\.pt")


class CheckpointError(Exception):
    """A checkpoint cannot be found, read or used; the text tells why."""


def stored(log_dir: Path) -> list[Path]:
    """The checkpoints in log_dir, oldest first."""
    found = [path for path in log_dir.glob("checkpoint-*.pt") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(_NAME.fullmatch(path.name).group(1)))


def find(which: str, log_dir: Path) -> Path:
    if which != "latest":
        return Path(which)
    checkpoints = stored(log_dir)
    if not checkpoints:
        raise CheckpointError(f"nothing to resume: {log_dir} holds no checkpoint-*.pt")
    return checkpoints[-1]


def load(path: Path) -> dict:
    """The file's contents on the CPU; tensors stay on disk until they are copied."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint {path}") from None
    except Exception as error:  # torch.load has no common type for a damaged file
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"cannot read checkpoint {path}: {reason}") from None


def save(log_dir: Path, step: int, contents: dict) -> Path:
    """Writes `contents` for `step` and drops older files. To be called by one rank."""
    path = log_dir / f"checkpoint-{step:08d}.pt"
    unfinished = path.with_suffix(".tmp")
    with open(unfinished, "wb") as file:
        torch.save(contents, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    folder = os.open(log_dir, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)
    for old in stored(log_dir)[:-KEEP]:
        old.unlink()
    return path


def whole(value):
    """`value` with every tensor in it unsharded and on the CPU. All ranks call it together."""
    if isinstance(value, DTensor):
        return value.full_tensor().cpu()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(whole(item) for item in value)
    return value


def place(parameter: nn.Parameter, value: torch.Tensor):
    """Copies a whole CPU tensor into a parameter; of a sharded one, this rank's part."""
    with torch.no_grad():
        parameter.copy_(_laid_out_like(parameter, value))


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict):
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    laid_out = {
        index: {
            name: _laid_out_like(parameters[index], value)
            if isinstance(value, torch.Tensor) and value.shape == parameters[index].shape
            else value
            for name, value in entries.items()
        }
        for index, entries in state["state"].items()
    }
    groups = optimizer.state_dict()["param_groups"]  # ours: the file may come from another device
    optimizer.load_state_dict({"state": laid_out, "param_groups": groups})


def _laid_out_like(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    if not isinstance(parameter, DTensor):
        return value
    # Every rank has the whole value, so none is sent: src_data_rank=None.
    value = value.to(parameter.device, parameter.dtype)
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
