"""Makes the generators here, and the backends and bounds of the conformance tests, importable."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "conformance"):
    sys.path.insert(0, str(folder))
