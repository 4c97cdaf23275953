# SPDX-License-Identifier: Apache-2.0
"""Libraries that have a closed list of devices, taught about ``xhal`` as they are imported.

A library that ends its list with the CPU would train there without a word. Nothing on disk
changes: an import hook lets the module load as it is and then puts our function in the place of one
of its own. Each patch is a file of its own that names what it stands for upstream. ``XHAL_SHIM=0``
applies none of them. A patch whose place is no longer there says so, and the watch (``watch.py``)
still sees where the parameters are when training begins.
"""

import importlib
import os
import sys

from .. import import_hooks

# Which patches a module gets. The names are files of this folder, imported when they are needed.
PATCHES = {
    "accelerate.state": (
        "accelerate_default_device",
        "accelerate_prepare_backend",
        "accelerate_set_device",
    ),
    "accelerate.accelerator": ("accelerate_fp16", "accelerate_grad_scaler"),
    "accelerate.commands.launch": ("accelerate_launch",),
    "transformers.utils.import_utils": ("transformers_bf16",),
    "transformers.utils": ("transformers_bf16",),
    "transformers.training_args": ("transformers_bf16", "transformers_device"),
    "safetensors": ("safetensors_safe_open",),
    "safetensors.torch": ("safetensors_safe_open",),
}
_CONNECTOR = ("lightning_choice", "lightning_strategy", "lightning_precision")
for _package, _connector in (
    ("lightning.pytorch", "trainer.connectors.accelerator_connector"),
    ("pytorch_lightning", "trainer.connectors.accelerator_connector"),
    ("lightning.fabric", "connector"),
    ("lightning_fabric", "connector"),
):
    PATCHES[f"{_package}.accelerators"] = ("lightning_accelerator",)
    PATCHES[f"{_package}.{_connector}"] = _CONNECTOR
    PATCHES[f"{_package}.strategies.ddp"] = ("lightning_ddp",)


def say(text: str) -> None:
    if os.environ.get("XHAL_LOG", "") != "off":
        print(f"xhal: {text}", file=sys.stderr, flush=True)


def wanted() -> bool:
    value = os.environ.get("XHAL_SHIM", "1")
    if value not in ("0", "1"):
        say(f'XHAL_SHIM="{value}" is neither 0 nor 1; taking 1')
    return value != "0"


def _apply(module) -> None:
    for name in PATCHES[module.__name__]:
        try:
            importlib.import_module(f"{__name__}.{name}").apply(module)
        except Exception as error:  # noqa: BLE001 - the library must go on as it is
            library = sys.modules.get(module.__name__.split(".")[0])
            version = getattr(library, "__version__", "of an unknown version")
            say(
                f"{module.__name__} ({version}) is not what the patch {name} was written for "
                f"({type(error).__name__}: {error}); it may take the CPU although xhal is there"
            )


def install() -> None:
    from . import watch

    import_hooks.after_import(watch.LIBRARIES, watch.begin)
    if wanted():
        import_hooks.after_import(PATCHES, _apply)
