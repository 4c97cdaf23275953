# SPDX-License-Identifier: Apache-2.0
"""transformers/utils/import_utils.py, is_torch_bf16_gpu_available: which devices know bf16."""

import torch


def apply(module) -> None:
    inner = module.is_torch_bf16_gpu_available
    if hasattr(inner, "_of_xhal"):  # whoever imported it from there has it already
        return

    def is_torch_bf16_gpu_available() -> bool:
        return inner() or torch.xhal.is_bf16_supported()

    is_torch_bf16_gpu_available._of_xhal = True
    module.is_torch_bf16_gpu_available = is_torch_bf16_gpu_available
