# SPDX-License-Identifier: Apache-2.0
"""accelerate/state.py, PartialState.set_device: MULTI_GPU is taken for CUDA by its name."""

import functools
import os

import torch


def apply(module) -> None:
    state = module.PartialState
    inner = state.set_device

    @functools.wraps(inner)
    def set_device(self):
        multi = self.distributed_type == module.DistributedType.MULTI_GPU
        if self.device is not None or not multi or torch.cuda.is_available():
            return inner(self)
        count = torch.xhal.device_count()
        if self.local_process_index >= count:
            # Ranks share a device, and DistributedDataParallel must not be told the rank as its
            # number; accelerator.py, prepare_model has this switch for it.
            os.environ["ACCELERATE_BYPASS_DEVICE_MAP"] = "true"
        self.device = torch.device("xhal", self.local_process_index % count)
        torch.xhal.set_device(self.device)

    state.set_device = set_device
