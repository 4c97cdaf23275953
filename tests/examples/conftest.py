# SPDX-License-Identifier: Apache-2.0
"""Makes examples/ and tools/ importable, and keeps installed devices out of these CPU tests."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "examples"), str(ROOT / "tools")]
