# SPDX-License-Identifier: Apache-2.0
"""pip install ./frameworks/torch into a user's own environment, against an installed xHAL."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def run(*command, **environment):
    result = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def test_pip_builds_a_package_that_works_in_a_fresh_environment(tmp_path):
    prefix, venv = tmp_path / "xhal", tmp_path / "venv"
    run("cmake", "--install", os.environ["XHAL_TEST_BUILD"], "--prefix", prefix)
    run("/usr/bin/python3", "-m", "venv", venv)
    python = venv / "bin" / "python"
    packages = Path(run(python, "-c", "import site; print(site.getsitepackages()[0])").strip())
    # torch is taken from where it is, instead of 5 GB more.
    (packages / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    options = ["--no-build-isolation", "--no-deps", "--no-index"]
    run(
        python, "-m", "pip", "install", *options, ROOT / "frameworks" / "torch",
        CMAKE_PREFIX_PATH=str(prefix), CMAKE_CXX_COMPILER_LAUNCHER="ccache", PYTHONPATH="",
    )  # fmt: skip
    assert list(packages.glob("torch_xhal/_C*.so"))
    code = (
        "import torch, torch_xhal; x = torch.ones(3, device='xhal');"
        "print(torch_xhal.state(), torch_xhal.__file__, (x @ x).item(), torch.xhal.fallbacks())"
    )
    said = run(python, "-c", code, PYTHONPATH="", LD_LIBRARY_PATH="", XHAL_PLUGIN_PATH="")
    assert said.split() == ["loaded", str(packages / "torch_xhal" / "__init__.py"), "3.0", "{}"]
    assert sys.prefix not in said
