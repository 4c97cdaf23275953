# SPDX-License-Identifier: Apache-2.0
"""torch.compile: dynamo learns about the device's streams and events once it is imported."""

from . import import_hooks

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


def register_when_needed() -> None:
    import_hooks.after_import((_TARGET,), lambda module: _register())
