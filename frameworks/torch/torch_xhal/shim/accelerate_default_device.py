# SPDX-License-Identifier: Apache-2.0
"""accelerate/state.py, PartialState.default_device: a list of devices that ends with the CPU."""

import torch


def apply(module) -> None:
    state = module.PartialState
    inner = state.default_device.fget

    def default_device(self) -> torch.device:
        device = inner(self)
        return torch.device("xhal") if device.type == "cpu" else device

    default_device.__doc__ = inner.__doc__
    state.default_device = property(default_device)
