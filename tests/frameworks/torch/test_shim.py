# SPDX-License-Identifier: Apache-2.0
"""Libraries with a closed list of devices: unmodified, they train on xhal; none trains on the CPU
without a word; and what the shim does to an import is not to be seen."""

import os

import pytest
from conftest import run_python
from libraries_run import expect_the_same, need, result

PATH = os.environ.get("PYTHONPATH", "")
LOUD = "THIS PROGRAM TRAINS ON THE CPU"
TRAIN = """
import torch
model = torch.nn.Linear(2, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
"""


def run(folder, code, **environment):
    """Runs the code with what is in the folder before everything else."""
    done = run_python("-c", code, PYTHONPATH=f"{folder}:{PATH}", **environment)
    assert done.returncode == 0, done.stderr
    return done


def package(folder, name, **files):
    (folder / name).mkdir()
    for file, text in {"__init__": "__version__ = '9.9'\n", **files}.items():
        (folder / name / f"{file}.py").write_text(text)


@pytest.mark.parametrize(
    "script", ["accelerate_loop", "trainer_loop", "lightning_loop", "fabric_loop"]
)
def test_an_unmodified_script_trains_on_xhal_with_the_losses_of_the_cpu(script):
    expect_the_same(script)


def test_fp16_trains_with_a_scaler_that_is_on():
    need("accelerate_loop")
    here, errors = result("accelerate_loop", "1", "--fp16")
    assert here["device"] == "xhal" and here["scaler"]
    assert "GradScaler" not in errors


def test_bf16_is_not_refused():
    need("trainer_loop")
    assert result("trainer_loop", "2", "--bf16")[0]["device"] == "xhal"


def test_switched_off_the_library_goes_to_the_cpu_and_says_so_loudly_once():
    need("accelerate_loop")
    there, errors = result("accelerate_loop", "1", XHAL_SHIM="0")
    assert there["device"] == "cpu"
    assert errors.count(LOUD) == 1 and "XHAL_SHIM=0" in errors


def test_a_cpu_that_was_asked_for_is_not_remarked_on():
    need("accelerate_loop")
    assert LOUD not in result("accelerate_loop", "1", "--cpu")[1]


def test_tensors_of_a_safetensors_file_go_where_they_are_wanted(tmp_path):
    pytest.importorskip("safetensors")
    code = f"""
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
file = r"{tmp_path}/x.safetensors"
made = {{"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)}}
save_file(made, file)
for device in ("xhal", "xhal:0", torch.device("xhal"), 0):
    read = load_file(file, device=device)
    assert all(read[k].device.type == "xhal" and read[k].cpu().equal(made[k]) for k in made)
    with safe_open(file, "pt", device) as opened:
        assert sorted(opened.keys()) == ["a", "b"]
        part = opened.get_slice("a")
        assert part.get_shape() == [2, 3] and part[1:].device.type == "xhal"
assert load_file(file)["a"].device.type == "cpu"
with safe_open(file, "np") as opened:
    assert opened.get_tensor("a").shape == (2, 3)
try:
    load_file(file, device="nosuch")
    raise SystemExit("an unknown device must stay an error")
except Exception as error:
    assert "nosuch" in str(error)
"""
    run(tmp_path, code)


def test_a_library_that_has_changed_is_named_and_still_imported(tmp_path):
    package(tmp_path, "accelerate", state="class SomethingElse: pass\n")
    done = run(tmp_path, "import torch, accelerate.state as s; assert s.SomethingElse")
    assert "accelerate.state (9.9) is not what the patch accelerate_default_device" in done.stderr


def test_a_module_that_itself_imports_torch_is_patched_when_it_is_complete(tmp_path):
    state = "import torch\nassert torch.xhal\n" + STATE
    package(tmp_path, "accelerate", state=state)
    code = "import accelerate.state as s; assert s.PartialState().default_device.type == 'xhal'"
    assert run(tmp_path, code).stderr == ""


STATE = """
import torch
class DistributedType:
    NO = MULTI_GPU = None
class PartialState:
    @property
    def default_device(self):
        return torch.device("cpu")
    def _prepare_backend(self, cpu=False, sagemaker_dp=False, backend=None):
        return backend, DistributedType.NO
    def set_device(self):
        pass
"""


def test_a_patched_module_looks_as_if_it_had_been_imported_plainly(tmp_path):
    package(tmp_path, "accelerate", state=STATE)
    code = """
import torch, accelerate.state as s, importlib, importlib.machinery as m
assert s.PartialState().default_device.type == "xhal"
assert type(s.__loader__) is type(s.__spec__.loader) is m.SourceFileLoader
assert "SomethingOfUpstream" not in vars(s)
importlib.reload(s)
assert s.PartialState().default_device.type == "xhal", "a reload is an import"
"""
    run(tmp_path, code)


def test_switched_off_nothing_is_patched(tmp_path):
    package(tmp_path, "accelerate", state=STATE)
    code = "import torch, accelerate.state as s; assert s.PartialState().default_device.type == {}"
    run(tmp_path, code.format("'cpu'"), XHAL_SHIM="0")
    done = run(tmp_path, code.format("'xhal'"), XHAL_SHIM="no")
    assert 'XHAL_SHIM="no" is neither 0 nor 1; taking 1' in done.stderr


def test_a_library_that_is_not_known_to_the_shim_is_heard_of_all_the_same(tmp_path):
    package(tmp_path, "trl")
    done = run(tmp_path, "import torch, trl\n" + TRAIN)
    assert done.stderr.count(LOUD) == 1 and "trl chose it" in done.stderr
    assert LOUD not in run(tmp_path, "import torch, trl\n" + TRAIN, XHAL_LOG="off").stderr


def test_a_program_that_trains_on_the_cpu_by_itself_is_left_alone(tmp_path):
    assert LOUD not in run(tmp_path, TRAIN).stderr


def test_a_library_that_trains_on_xhal_is_not_remarked_on(tmp_path):
    package(tmp_path, "trl")
    code = TRAIN.replace("Linear(2, 1)", "Linear(2, 1, device='xhal')").replace(
        "ones(4, 2)", "ones(4, 2, device='xhal')"
    )
    assert LOUD not in run(tmp_path, "import torch, trl\n" + code).stderr
