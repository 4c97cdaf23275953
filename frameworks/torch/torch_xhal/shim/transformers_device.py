# SPDX-License-Identifier: Apache-2.0
"""transformers/training_args.py, TrainingArguments._setup_devices.

It asks accelerate for the device and then goes through a list of its own that ends with the CPU.
The device that accelerate has chosen is the right one.
"""

import functools

from . import watch


def apply(module) -> None:
    arguments = module.TrainingArguments
    cached = arguments.__dict__["_setup_devices"]
    inner = cached.func if hasattr(cached, "func") else cached.fget

    def _setup_devices(self):
        device = inner(self)
        if self.use_cpu:
            watch.cpu_was_asked_for()
        chosen = self.distributed_state.device if self.distributed_state else device
        if device.type != "cpu" or chosen.type != "xhal":
            return device
        self._n_gpu = 1
        return chosen

    new = functools.cached_property(_setup_devices)
    new.__set_name__(arguments, "_setup_devices")
    arguments._setup_devices = new
