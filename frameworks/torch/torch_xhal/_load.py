# SPDX-License-Identifier: Apache-2.0
"""Makes torch know the device: versions, names, generators, distributed, and the exit."""

import atexit
import importlib
import json
import os
import sys

import torch

FLOOR = (2, 6)


class StandDown(Exception):
    """No error of torch: the device cannot be had here; the text says why and what to do."""


def _version(text: str) -> tuple:
    return tuple(int(part) for part in text.split("+")[0].split(".")[:2])


def _check_versions() -> None:
    here = torch.__version__
    if _version(here) < FLOOR:
        raise StandDown(
            f"torch {here} is older than {FLOOR[0]}.{FLOOR[1]}, the oldest it works with"
        )
    try:
        from ._build import BUILT_FOR_TORCH
    except ImportError:
        raise StandDown(
            "the package is incomplete (no _build.py); install it anew: "
            "pip install ./frameworks/torch"
        )
    if _version(here) != _version(BUILT_FOR_TORCH):
        raise StandDown(
            f"it was built for torch {BUILT_FOR_TORCH}, this is torch {here}, and torch keeps no "
            "binary interface. Build it for this torch: "
            "pip install --no-build-isolation ./frameworks/torch"
        )


def _import_extension():
    try:
        return importlib.import_module("torch_xhal._C")
    except ImportError as error:
        text = str(error)
        if "libxhal" in text or "libxcoll" in text:
            raise StandDown(
                f"{text}. Install xHAL (cmake --install) or add its lib folder to LD_LIBRARY_PATH"
            ) from None
        raise StandDown(f"its extension does not load: {text}") from None


def _only_the_host(extension) -> bool:
    """Whether all xHAL can offer here are host cores."""
    return all(extension.describe(i)["plugin"] == "cpu" for i in range(extension.device_count()))


def _other_accelerator() -> str:
    """Name of an accelerator torch has without us, or "".

    Looks before it asks: asking starts drivers.
    """
    if (
        os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd")
    ) and torch.cuda.is_available():
        return "cuda"
    if hasattr(torch, "xpu") and os.path.exists("/dev/dri") and torch.xpu.is_available():
        return "xpu"
    return ""


def load() -> str:
    if hasattr(torch, "xhal"):
        return "loaded"  # the package was reloaded; torch knows the device already
    _check_versions()
    extension = _import_extension()
    other = _other_accelerator()
    if other and not os.environ.get("XHAL_VISIBLE_DEVICES") and _only_the_host(extension):
        # A process has one accelerator. Host cores do not take the place of a real one unasked.
        return f"stood down: torch has {other}; set XHAL_VISIBLE_DEVICES to use xhal instead"

    from . import device

    torch.utils.rename_privateuse1_backend("xhal")
    torch._register_device_module("xhal", device)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    extension.register_graphs("XHAL")
    _register_distributed()
    _register_compiler()
    _register_sharing()
    _register_checkpointing()
    _print_from_host()
    _register_shim()
    _name_for_dlpack()
    atexit.register(_at_exit, extension)
    return "loaded"


def _register_distributed() -> None:
    if not torch.distributed.is_available():
        return
    from . import distributed

    distributed.register()


def _register_compiler() -> None:
    """Tells dynamo about the device when dynamo is imported: importing it here costs a second."""
    from . import compiler

    compiler.register_when_needed()


def _register_shim() -> None:
    """Libraries that know devices by a list of names learn ours when they are imported."""
    from . import shim

    shim.install()


def _register_sharing() -> None:
    from . import sharing

    sharing.register()


def _register_checkpointing() -> None:
    from . import checkpointing

    checkpointing.register()


def _print_from_host() -> None:
    """Tensors are printed from a copy on the host.

    torch formats them element by element, in f64; it does so on the device unless it knows the
    device by name. The text is the same.
    """
    from torch import _tensor_str

    inner = getattr(_tensor_str, "_tensor_str", None)
    if inner is None:
        return

    def _tensor_str_of_host(tensor, indent):
        return inner(tensor.cpu() if tensor.device.type == "xhal" else tensor, indent)

    _tensor_str._tensor_str = _tensor_str_of_host


def _name_for_dlpack() -> None:
    """``torch.from_dlpack(tensor)`` asks the tensor for its device, which torch's own method knows
    by the name privateuse1 only, not by the one it was given."""
    from torch.utils.dlpack import DLDeviceType

    inner = torch.Tensor.__dlpack_device__

    def __dlpack_device__(self):
        if self.device.type == "xhal":
            return (DLDeviceType.kDLExtDev, self.device.index)
        return inner(self)

    torch.Tensor.__dlpack_device__ = __dlpack_device__


def write_fallback_report(extension, path: str) -> None:
    path = path.replace("%p", str(os.getpid()))
    report = {"pid": os.getpid(), "fallbacks": extension.fallbacks()}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(report, file, indent=1, sort_keys=True)
        file.write("\n")


def _at_exit(extension) -> None:
    """Report, process groups, then the library: what runs may need what is closed later."""
    if extension.is_in_bad_fork():
        return
    path = os.environ.get("XHAL_FALLBACK_REPORT")
    if path:
        try:
            write_fallback_report(extension, path)
        except OSError as error:
            print(
                f"xhal: cannot write XHAL_FALLBACK_REPORT={path}: {error.strerror}", file=sys.stderr
            )
    if hasattr(extension, "close_process_groups"):
        # A program that ends by an exception, Ctrl-C too, waits for no other rank.
        extension.close_process_groups(getattr(sys, "last_value", None) is None)
    _end_backward_passes(extension)
    extension.shutdown()


def _end_backward_passes(extension) -> None:
    """Ends autograd's threads while the interpreter is whole.

    A pass that is begun later, by a finalizer say, would wait for them for ever: it is refused.
    """
    extension.stop_autograd_threads()
    engine = torch.autograd.Variable._execution_engine

    class EndedEngine(type(engine)):
        def run_backward(self, tensors, *arguments, **options):
            if any(getattr(tensor, "device", None) not in (None, torch.device("cpu"))
                   for tensor in tensors):  # fmt: skip
                raise RuntimeError("backward() on a device: the interpreter is exiting")
            return super().run_backward(tensors, *arguments, **options)

    torch.autograd.Variable._execution_engine = EndedEngine()
