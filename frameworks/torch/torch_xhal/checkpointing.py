# SPDX-License-Identifier: Apache-2.0
"""Activation checkpointing whose arguments show no device tensor.

torch keeps the state of the random numbers, and of autocast, of the devices it finds among the
arguments of the checkpointed function. Where there is none (the function moves its input itself, or
has its tensors in a closure) it takes the default device type, which is CUDA, and no state at all:
what is recomputed would drop other elements. Here the default is the process's accelerator, and the
state is that of the current device.
"""

import torch.utils.checkpoint as torch_checkpoint


def register() -> None:
    default = torch_checkpoint.DefaultDeviceType
    if default.get_device_type() == "cuda":
        default.set_device_type("xhal")
    inner = torch_checkpoint.get_device_states

    def get_device_states(*args):
        ids, states = inner(*args)
        if not ids and torch_checkpoint._infer_device_type(*args) == "xhal":
            from . import device

            ids = [device.current_device()]
            states = [device.get_rng_state(ids[0])]
        return ids, states

    torch_checkpoint.get_device_states = get_device_states
