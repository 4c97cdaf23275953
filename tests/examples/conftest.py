"""Makes examples/ importable, and keeps installed devices out of these CPU tests."""

import os
import sys
from pathlib import Path

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
