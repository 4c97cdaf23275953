# SPDX-License-Identifier: Apache-2.0
"""accelerate/commands/launch.py, _validate_launch_command: how many processes ``accelerate launch``
starts.

It counts the devices it knows. With none of them ``--num_processes 2`` starts one, without a word.
"""

import functools
import os

import torch

_KINDS = ("cpu", "multi_gpu", "tpu", "use_deepspeed", "use_fsdp", "use_megatron_lm")


def apply(module) -> None:
    inner = module._validate_launch_command

    @functools.wraps(inner)
    def _validate_launch_command(args):
        chosen = any(getattr(args, kind, False) for kind in _KINDS)
        configured = args.config_file is not None or os.path.isfile(module.default_config_file)
        if not chosen and not configured:
            if args.num_processes is None:
                args.num_processes = torch.xhal.device_count()
            args.multi_gpu = args.num_processes > 1
        return inner(args)

    module._validate_launch_command = _validate_launch_command
