# SPDX-License-Identifier: Apache-2.0
"""torch.compile: dynamo learns about the device's streams and events once it is imported."""

import importlib.abc
import importlib.machinery
import sys

_TARGET = "torch._dynamo.device_interface"


def _register() -> None:
    import torch
    from torch._dynamo.device_interface import DeviceInterface, register_interface_for_device

    from . import device as xhal

    class XhalInterface(DeviceInterface):
        device = xhal.device
        Event = torch.Event
        Stream = torch.Stream

        class Worker:
            @staticmethod
            def set_device(index: int) -> None:
                xhal.set_device(index)

            @staticmethod
            def current_device() -> int:
                return xhal.current_device()

            @staticmethod
            def get_device_properties(device=None):
                return xhal.get_device_properties(device)

        current_device = staticmethod(xhal.current_device)
        set_device = staticmethod(xhal.set_device)
        device_count = staticmethod(xhal.device_count)
        is_available = staticmethod(xhal.is_available)
        stream = staticmethod(xhal.stream)
        current_stream = staticmethod(xhal.current_stream)
        set_stream = staticmethod(xhal.set_stream)
        synchronize = staticmethod(xhal.synchronize)
        get_device_properties = staticmethod(xhal.get_device_properties)
        get_compute_capability = staticmethod(xhal.get_device_capability)
        exchange_device = staticmethod(xhal._exchange_device)
        maybe_exchange_device = staticmethod(xhal._maybe_exchange_device)
        memory_allocated = staticmethod(xhal.memory_allocated)

        @staticmethod
        def is_bf16_supported(including_emulation: bool = False) -> bool:
            return xhal.is_bf16_supported()

        @staticmethod
        def _set_stream_by_id(stream_id: int, device_index: int, device_type: int) -> None:
            xhal.set_stream(
                torch.Stream(
                    stream_id=stream_id, device_index=device_index, device_type=device_type
                )
            )

    register_interface_for_device("xhal", XhalInterface)
    for index in range(xhal.device_count()):
        register_interface_for_device(f"xhal:{index}", XhalInterface)


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the import of one module pass as it is, and registers right after it."""

    def find_spec(self, name, path, target=None):
        if name != _TARGET:
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def exec_module(module):
            run(module)
            _register()

        spec.loader.exec_module = exec_module
        return spec


def register_when_needed() -> None:
    if _TARGET in sys.modules:
        _register()
    else:
        sys.meta_path.insert(0, _Finder())
