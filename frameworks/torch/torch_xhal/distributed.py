# SPDX-License-Identifier: Apache-2.0
"""The c10d backend ``xhal``: libxcoll for tensors of xhal devices and of the host."""

import datetime

import torch.distributed as dist

from . import _C


def _make(store, rank: int, size: int, timeout: datetime.timedelta):
    return _C.make_process_group(store, rank, size, timeout)


def register() -> None:
    if not hasattr(_C, "make_process_group"):
        return
    dist.Backend.register_backend("xhal", _make, devices=["xhal", "cpu"])
