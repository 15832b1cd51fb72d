"""Makes the networks of the golden tests and the conformance cases importable."""

from __future__ import annotations

import sys
from pathlib import Path

for folder in ("golden", "conformance"):
    sys.path.insert(0, str(Path(__file__).parents[2] / folder))
