# SPDX-License-Identifier: Apache-2.0
"""safetensors (bindings/python/src/lib.rs), safe_open: its devices are a closed list in Rust.

A file opened for an xhal device is opened for the CPU, and what is taken out of it goes to the
device. Every other device is the original's business.
"""

import torch


def _xhal(device):
    """The device, when it is one of ours."""
    if isinstance(device, int) and not isinstance(device, bool):
        device = torch.device("xhal", device) if not torch.cuda.is_available() else "cuda"
    if str(device).split(":")[0] != "xhal":
        return None
    return torch.device(str(device))


class _Slice:
    def __init__(self, inner, device):
        self._inner = inner
        self._device = device

    def __getitem__(self, index):
        return self._inner[index].to(self._device)

    def __getattr__(self, name):
        return getattr(self._inner, name)


class _File:
    def __init__(self, inner, device):
        self._inner = inner
        self._device = device

    def __enter__(self):
        self._inner.__enter__()
        return self

    def __exit__(self, *error):
        return self._inner.__exit__(*error)

    def get_tensor(self, *arguments, **named):
        return self._inner.get_tensor(*arguments, **named).to(self._device)

    def get_tensors(self, *arguments, **named):
        tensors = self._inner.get_tensors(*arguments, **named)
        if isinstance(tensors, dict):
            return {name: tensor.to(self._device) for name, tensor in tensors.items()}
        return [tensor.to(self._device) for tensor in tensors]

    def get_slice(self, *arguments, **named):
        return _Slice(self._inner.get_slice(*arguments, **named), self._device)

    def __getattr__(self, name):
        return getattr(self._inner, name)


def _opener(inner):
    class safe_open:
        __doc__ = inner.__doc__

        def __new__(cls, filename, framework, device="cpu", **more):
            ours = _xhal(device) if framework in ("pt", "torch", "pytorch") else None
            if ours is None:
                return inner(filename, framework, device, **more)
            return _File(inner(filename, framework, "cpu", **more), ours)

        _xhal_inner = inner

    return safe_open


def apply(module) -> None:
    if not hasattr(module.safe_open, "_xhal_inner"):  # safetensors.torch may have it already
        module.safe_open = _opener(module.safe_open)
