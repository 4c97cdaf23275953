# SPDX-License-Identifier: Apache-2.0
"""One loud line when a library trains on the CPU although xhal is the accelerator.

Looked at where every training loop comes by: the first step of the first optimizer, once. A program
that trains on the CPU without such a library has chosen so itself and is left alone.
"""

import torch

LIBRARIES = ("accelerate", "transformers", "lightning", "pytorch_lightning", "trl", "fastai")

_libraries = []
_handle = None
_cpu_was_asked_for = False


def cpu_was_asked_for() -> None:
    """Patches tell it when the program itself named the CPU."""
    global _cpu_was_asked_for
    _cpu_was_asked_for = True


def begin(module) -> None:
    global _handle
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    _libraries.append(module.__name__)
    if _handle is None:
        _handle = register_optimizer_step_pre_hook(_look)


def _look(optimizer, args, kwargs) -> None:
    _handle.remove()
    devices = {p.device.type for group in optimizer.param_groups for p in group["params"]}
    accelerator = torch.accelerator.current_accelerator()
    if devices != {"cpu"} or _cpu_was_asked_for or accelerator is None:
        return
    if accelerator.type != "xhal" or torch.xhal.memory_stats().get("allocation.all.allocated", 0):
        return
    from . import say, wanted

    why = "" if wanted() else " (XHAL_SHIM=0 keeps it from being told of xhal)"
    say(
        f"THIS PROGRAM TRAINS ON THE CPU although xhal:0 is there: {', '.join(_libraries)} chose "
        f'it{why}. Name the device, for example device="xhal", or say that you want the CPU'
    )
