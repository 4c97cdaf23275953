# SPDX-License-Identifier: Apache-2.0
"""accelerate/state.py, PartialState._prepare_backend: which c10d backend belongs to which device.

Under a launcher a device it does not know means "not distributed": each rank would train alone.
MULTI_GPU is what accelerate calls one device a process; everything below treats it so.
"""

import functools
import os

from . import watch


def apply(module) -> None:
    state = module.PartialState
    inner = state._prepare_backend

    @functools.wraps(inner)
    def _prepare_backend(self, cpu=False, sagemaker_dp=False, backend=None):
        if cpu:
            watch.cpu_was_asked_for()
        chosen, kind = inner(self, cpu, sagemaker_dp, backend)
        launched = int(os.environ.get("LOCAL_RANK", -1)) != -1
        if kind == module.DistributedType.NO and launched and not cpu:
            return backend or "xhal", module.DistributedType.MULTI_GPU
        return chosen, kind

    state._prepare_backend = _prepare_backend
