# SPDX-License-Identifier: Apache-2.0
"""lightning/{pytorch,fabric}/accelerators/__init__.py: the registry of accelerators gets
``xhal``."""

import torch


def _indices(devices) -> list:
    """What a user may write for ``devices``, as indices."""
    count = torch.xhal.device_count()
    if isinstance(devices, str):
        devices = devices.strip()
        parts = [part for part in devices.split(",") if part.strip()]
        devices = [int(part) for part in parts] if "," in devices else int(devices)
    if isinstance(devices, int):
        devices = list(range(count if devices == -1 else devices))
    devices = list(devices)
    absent = [index for index in devices if not 0 <= index < count]
    if absent:
        raise ValueError(
            f"devices={devices}: there is no xhal:{absent[0]}; this process sees {count} "
            f"(xhal list; for more on host cores set XHAL_CPU_DEVICES)"
        )
    return devices


def _make(base):
    class XHALAccelerator(base):
        """The devices that xHAL's plugins drive."""

        def setup_device(self, device: torch.device) -> None:
            if device.type != "xhal":
                raise ValueError(f"the accelerator xhal was given the device {device}")
            torch.xhal.set_device(device)

        def teardown(self) -> None:
            torch.xhal.empty_cache()

        def get_device_stats(self, device) -> dict:
            return torch.xhal.memory_stats(device)

        @staticmethod
        def parse_devices(devices) -> list:
            return _indices(devices)

        @staticmethod
        def get_parallel_devices(devices) -> list:
            return [torch.device("xhal", index) for index in devices]

        @staticmethod
        def auto_device_count() -> int:
            return torch.xhal.device_count()

        @staticmethod
        def is_available() -> bool:
            return torch.xhal.is_available()

        @staticmethod
        def name() -> str:
            return "xhal"

    return XHALAccelerator


def apply(module) -> None:
    registry = getattr(module, "AcceleratorRegistry", None) or module.ACCELERATOR_REGISTRY
    registry.register("xhal", _make(module.Accelerator), description="xHAL devices")
