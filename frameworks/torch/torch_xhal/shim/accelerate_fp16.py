# SPDX-License-Identifier: Apache-2.0
"""accelerate/accelerator.py, Accelerator.__init__: ``supported_device``, who may train in fp16.

The list is a constant of the function, so the function gets other constants.
"""


def apply(module) -> None:
    init = module.Accelerator.__init__
    function = getattr(init, "__wrapped__", init)
    code = function.__code__
    lists = [c for c in code.co_consts if isinstance(c, tuple) and "cuda" in c and "xpu" in c]
    if not lists:
        raise LookupError("no list of devices in Accelerator.__init__")
    function.__code__ = code.replace(
        co_consts=tuple((*c, "xhal") if c in lists else c for c in code.co_consts)
    )
