# SPDX-License-Identifier: Apache-2.0
"""accelerate/utils/modeling.py, get_grad_scaler, as accelerate/accelerator.py has imported it.

For a device that it does not know it makes a GradScaler for CUDA, which switches itself off where
there is none: fp16 would train without any scaling of the loss.
"""

import functools

import torch


def apply(module) -> None:
    inner = module.get_grad_scaler

    @functools.wraps(inner)
    def get_grad_scaler(distributed_type=None, **options):
        if torch.cuda.is_available() or distributed_type == module.DistributedType.FSDP:
            return inner(distributed_type, **options)
        return torch.amp.GradScaler("xhal", **options)

    module.get_grad_scaler = get_grad_scaler
