# SPDX-License-Identifier: Apache-2.0
"""What the tests of the PyTorch device share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: not by default (`./dev test --all`)")


def pytest_collection_modifyitems(items):
    if not hasattr(torch, "xhal") or not torch.xhal.is_available():
        import torch_xhal

        raise pytest.UsageError(f"there is no xhal device: {torch_xhal.state()}")


@pytest.fixture(autouse=True)
def fresh_counts():
    torch.xhal.reset_fallbacks()
    yield
    torch.xhal.synchronize()


@pytest.fixture
def no_fallback():
    """The test's work must have run on the device, all of it."""
    torch.xhal.reset_fallbacks()
    yield
    assert torch.xhal.fallbacks() == {}


def run_python(*arguments, timeout=240, **environment):
    """Runs this interpreter anew with the arguments; returns the finished process."""
    return subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.fixture(scope="session")
def python():
    return run_python
