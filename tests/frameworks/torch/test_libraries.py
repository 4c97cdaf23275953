# SPDX-License-Identifier: Apache-2.0
"""Which OpenMP runtime and BLAS the cpu plugin runs on, with torch in the process and without.

The dynamic linker tells: LD_DEBUG=bindings names, for each symbol, who asked and who gave.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

BINDING = re.compile(r"binding file (\S+) \[\d+\] to (\S+) \[\d+\]: \w+ symbol `(\w+)'")
OURS = ("libxhal_cpu.so", "libdnnl.so")
BLAS = re.compile(r"(cblas_)?[sd]gemm_?$")
TORCH_FIRST = """
import torch
x = torch.ones(300, 300, device="xhal")
assert (x @ x).sum().item() == 300.0 ** 3
"""


def bindings(command, folder):
    """{symbol: {(who asked, who gave)}} of one run, of the libraries that are ours to watch."""
    # The linker takes whatever is in the environment for the child processes, too: a file for each.
    environment = dict(os.environ, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(folder / "bindings"))
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300)
    found = {}
    for file in folder.glob("bindings.*"):
        with open(file, errors="replace") as lines:
            for line in lines:
                match = BINDING.search(line)
                if match and os.path.basename(match[1]).startswith(OURS):
                    found.setdefault(match[3], set()).add((match[1], match[2]))
        file.unlink()
    return found


@pytest.fixture(params=["torch first", "without torch"])
def bound(request, tmp_path):
    if request.param == "torch first":
        return bindings([sys.executable, "-c", TORCH_FIRST], tmp_path)
    program = shutil.which("train_mlp_c")
    assert program, "the examples are not built"
    return bindings([program], tmp_path)


def test_the_plugin_and_onednn_use_the_same_openmp(bound):
    # Else the plugin's "one thread" would not reach the runtime that oneDNN asks.
    givers = {
        os.path.realpath(giver)
        for symbol, pairs in bound.items()
        if symbol.startswith(("omp_", "GOMP_"))
        for _, giver in pairs
    }
    assert "omp_set_num_threads" in bound and "omp_get_max_threads" in bound
    assert any(
        os.path.basename(asker).startswith("libdnnl") for asker, _ in bound["omp_get_max_threads"]
    )
    assert len(givers) == 1, f"several OpenMP runtimes: {givers}"


def test_no_blas_of_the_process_is_bound(bound):
    taken = {symbol: pairs for symbol, pairs in bound.items() if BLAS.match(symbol)}
    outside = {s: p for s, p in taken.items() if any("openblas" not in giver for _, giver in p)}
    assert not outside, "BLAS symbols bound from libraries that the plugin did not load"
