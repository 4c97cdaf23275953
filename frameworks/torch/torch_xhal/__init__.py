# SPDX-License-Identifier: Apache-2.0
"""PyTorch on xHAL devices: the device ``xhal``.

Nothing needs to be imported: ``import torch`` finds this package by its entry point and calls
``_autoload``. That never breaks ``import torch``: whatever is wrong, one line on stderr says what
and what to do, and torch goes on without us.
"""

import os
import sys

__version__ = "0.1.0"

_state = "not loaded"


def state() -> str:
    """``loaded``, or why the device is not there."""
    return _state


def _autoload() -> None:
    """Called by torch at the end of its import. Never raises."""
    global _state
    if _state != "not loaded":
        return
    _state = "loading"
    try:
        from . import _load

        _state = _load.load()
    except Exception as error:  # noqa: BLE001 - the import of torch must go on
        _state = f"stood down: {error}"
        if os.environ.get("XHAL_LOG", "") != "off":
            print(f"torch_xhal stands down, torch works without it: {error}", file=sys.stderr)


# For a user who imports this package first: torch autoloads it while it is being imported; the
# call below is then idle.
import torch  # noqa: E402

_autoload()
