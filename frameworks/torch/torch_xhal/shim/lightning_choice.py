# SPDX-License-Identifier: Apache-2.0
"""lightning/pytorch/trainer/connectors/accelerator_connector.py, _AcceleratorConnector, and
lightning/fabric/connector.py, _Connector: ``accelerator="auto"`` and ``"gpu"`` are chosen from
lists.
"""

from . import watch


def apply(module) -> None:
    connector = getattr(module, "_AcceleratorConnector", None) or module._Connector
    automatic = connector._choose_auto_accelerator
    gpu = connector._choose_gpu_accelerator_backend
    init = connector.__init__

    def _choose_auto_accelerator() -> str:
        chosen = automatic()
        return "xhal" if chosen == "cpu" else chosen

    def _choose_gpu_accelerator_backend() -> str:
        try:
            return gpu()
        except Exception:  # noqa: BLE001 - "no gpu backend": each module has its own class for it
            return "xhal"

    def __init__(self, *arguments, **named):
        init(self, *arguments, **named)
        if self.accelerator.name() == "cpu":
            watch.cpu_was_asked_for()

    connector._choose_auto_accelerator = staticmethod(_choose_auto_accelerator)
    connector._choose_gpu_accelerator_backend = staticmethod(_choose_gpu_accelerator_backend)
    __init__.__wrapped__ = init
    connector.__init__ = __init__
