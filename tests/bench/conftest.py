"""bench/ is a room of the repository, not a package that is installed: its tests find it from the repository's top."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
