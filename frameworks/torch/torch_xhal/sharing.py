# SPDX-License-Identifier: Apache-2.0
"""Device tensors given to other processes by torch.multiprocessing: they travel as copies.

xHAL's memory is not shared between processes here. A queue pickles in a thread of its own, where an
error is printed and the receiver waits for ever; so a tensor is sent by value, and a warning says
once that the two processes do not see each other's writes. By value, not through shared memory of
the host: a sender may have ended when the receiver looks.
"""

import io
import warnings
from multiprocessing import reduction

import torch
from torch.multiprocessing import reductions

_WARNING = (
    "a tensor of an xhal device is sent to another process as a copy: what one process writes "
    "later, the other does not see"
)


def _rebuild(kind, data, device, requires_grad):
    tensor = torch.load(io.BytesIO(data), weights_only=True).to(device)
    if kind is torch.nn.Parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)


def _reduce_tensor(tensor):
    if tensor.device.type != "xhal":
        return reductions.reduce_tensor(tensor)
    if tensor.requires_grad and not tensor.is_leaf:
        raise RuntimeError(
            "Cowardly refusing to serialize non-leaf tensor which requires_grad, since autograd "
            "does not support crossing process boundaries.  If you just want to transfer the data, "
            "call detach() on the tensor before serializing (e.g., putting it on the queue)."
        )
    warnings.warn(_WARNING, stacklevel=2)
    kind = torch.nn.Parameter if isinstance(tensor, torch.nn.Parameter) else torch.Tensor
    data = io.BytesIO()
    torch.save(tensor.detach().cpu(), data)
    return _rebuild, (kind, data.getvalue(), str(tensor.device), tensor.requires_grad)


def _reduce_storage(storage):
    if storage.device.type == "xhal":
        raise RuntimeError("Cannot pickle xhal storage; try pickling a xhal tensor instead")
    return reductions.reduce_storage(storage)


def register() -> None:
    register = reduction.register
    for kind in (*torch._tensor_classes, torch.Tensor, torch.nn.Parameter):
        register(kind, _reduce_tensor)
    register(torch.UntypedStorage, _reduce_storage)
