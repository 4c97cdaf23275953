# SPDX-License-Identifier: Apache-2.0
"""The device in processes of their own: autoload, fallback modes, forks. torch always comes up."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch_xhal

PACKAGE = Path(torch_xhal.__file__).parent
ALONE = "import torch; x = torch.arange(3.0); assert (x + 1).sum().item() == 6; "
STATE = ALONE + "import torch_xhal; print(torch_xhal.state())"


def comes_up(result):
    """torch worked; returns all it said."""
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Traceback" not in result.stderr
    return result.stdout + result.stderr


def search_path(folder):
    return f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"


def copied_package(folder):
    """The built package elsewhere, where its libraries are not beside it."""
    shutil.copytree(PACKAGE, folder / "torch_xhal")
    for info in PACKAGE.parent.glob("torch_xhal-*.dist-info"):
        shutil.copytree(info, folder / info.name)
    return folder / "torch_xhal"


# ---- import torch never breaks


def test_import_torch_is_all_a_user_writes(python):
    code = (
        "import torch; print(torch.ones(2, device='xhal').sum().item(), torch.xhal.device_count())"
    )
    assert comes_up(python("-c", code, XHAL_CPU_DEVICES="2")).strip() == "2.0 2"


def test_the_package_may_be_imported_first(python):
    code = (
        "import torch_xhal, torch; print(torch_xhal.state(), torch.ones(1, device='xhal').item())"
    )
    assert comes_up(python("-c", code)).strip() == "loaded 1.0"


def test_without_autoload_torch_is_untouched(python):
    code = ALONE + "print(hasattr(torch, 'xhal'))"
    assert comes_up(python("-c", code, TORCH_DEVICE_BACKEND_AUTOLOAD="0")).strip() == "False"


def test_a_missing_library_is_named_with_its_remedy(python, tmp_path):
    copied_package(tmp_path)
    said = comes_up(
        python("-c", STATE, PYTHONPATH=search_path(tmp_path), LD_LIBRARY_PATH="/nowhere")
    )
    assert "stood down" in said and "libx" in said and "LD_LIBRARY_PATH" in said


def test_another_torch_is_named_with_its_remedy(python, tmp_path):
    package = copied_package(tmp_path)
    (package / "_build.py").write_text('BUILT_FOR_TORCH = "2.7.1"\n')
    said = comes_up(python("-c", STATE, PYTHONPATH=search_path(tmp_path)))
    assert "built for torch 2.7.1" in said and "pip install" in said


def test_a_broken_extension_is_no_fault_of_torch(python, tmp_path):
    package = copied_package(tmp_path)
    (library,) = package.glob("_C*.so")
    library.write_bytes(b"not a library")
    said = comes_up(python("-c", STATE, PYTHONPATH=search_path(tmp_path)))
    assert "stands down" in said and "does not load" in said


NOTHING = (
    ALONE + "print(torch.xhal.is_available(), torch.xhal.device_count())\n"
    "try:\n    torch.ones(1, device='xhal')\n"
    "except RuntimeError as error:\n    print(error)"
)


def test_no_device_is_said_when_one_is_wanted(python):
    said = comes_up(python("-c", NOTHING, XHAL_PLUGIN_DISABLE="*", XHAL_VISIBLE_DEVICES=""))
    assert "False 0" in said and "there is no xHAL device" in said, said


@pytest.mark.parametrize("value", ["npu:7", "no such plugin", "cpu:99"])
def test_a_wrong_choice_of_devices_is_named(python, value):
    said = comes_up(python("-c", NOTHING, XHAL_VISIBLE_DEVICES=value))
    assert "False 0" in said and "XHAL_VISIBLE_DEVICES" in said and value in said, said


def test_a_broken_plugin_takes_nothing_down(python, tmp_path):
    (tmp_path / "broken.json").write_text("{ this is no manifest")
    (tmp_path / "empty.json").write_text("{}")
    path = f"{tmp_path}{os.pathsep}{os.environ['XHAL_PLUGIN_PATH']}"
    code = ALONE + "print(torch.ones(2, device='xhal').sum().item())"
    assert "2.0" in comes_up(python("-c", code, XHAL_PLUGIN_PATH=path))


# ---- what the device lacks

LACKS = "import torch; x = torch.rand(3, 3, device='xhal'); torch.linalg.eigh(x @ x.t()); "


def test_a_fallback_is_named_once(python):
    code = LACKS + "torch.linalg.eigh(x); print(torch.xhal.fallbacks())"
    result = python("-c", code, XHAL_FALLBACK="warn")
    assert "'aten::_linalg_eigh.eigenvalues': 2" in comes_up(result)
    assert result.stderr.count("_linalg_eigh") == 1 and "runs on the host" in result.stderr


def test_fallbacks_can_be_silent_and_are_still_counted(python, tmp_path):
    report = tmp_path / "report-%p.json"
    result = python("-c", LACKS, XHAL_FALLBACK="silent", XHAL_FALLBACK_REPORT=str(report))
    assert comes_up(result) == ""
    (file,) = tmp_path.glob("report-*.json")
    assert json.loads(file.read_text())["fallbacks"] == {"aten::_linalg_eigh.eigenvalues": 1}


def test_fallbacks_can_be_errors(python):
    result = python("-c", LACKS, XHAL_FALLBACK="error")
    assert result.returncode != 0
    assert "would run on the host" in result.stderr and "XHAL_FALLBACK=warn" in result.stderr


def test_an_unknown_mode_is_said(python):
    said = comes_up(python("-c", LACKS, XHAL_FALLBACK="loud"))
    assert 'XHAL_FALLBACK: there is no value "loud"; there are warn, error and silent' in said


# ---- forks


def test_a_child_of_a_fork_is_refused_the_device_with_a_remedy(python):
    code = """
import os, torch
x = torch.ones(2, device="xhal")
child = os.fork()
if not child:
    try:
        torch.ones(2, device="xhal")
    except RuntimeError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(9)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
print(x.sum().item())
"""
    assert comes_up(python("-c", code)).strip() == "2.0"


def test_a_child_forked_before_first_use_has_the_device(python):
    code = """
import os, torch
assert torch.xhal.device_count() > 0
child = os.fork()
value = torch.ones(2, device="xhal").sum().item()
if not child:
    os._exit(0 if value == 2 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    comes_up(python("-c", code))


def test_data_loader_workers_feed_the_device(python):
    code = """
import torch
data = torch.utils.data.TensorDataset(torch.arange(64.0))
torch.ones(1, device="xhal")
loader = torch.utils.data.DataLoader(data, batch_size=8, num_workers=2, pin_memory=True)
total = torch.zeros((), device="xhal")
for (batch,) in loader:
    assert batch.is_pinned()
    total += batch.to("xhal", non_blocking=True).sum()
print(total.item())
"""
    assert comes_up(python("-c", code)).strip() == str(float(sum(range(64))))
