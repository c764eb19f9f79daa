"""What all tests share: a part that the machine lacks is skipped with its reason, and fails where CI=true."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

# matplotlib would write its list of fonts into the home folder of whoever runs the tests.
os.environ.setdefault(
    "MPLCONFIGDIR", str(Path(__file__).resolve().parent.parent / ".pytest_cache" / "matplotlib")
)

# A shell without job control starts what runs in the background deaf to Ctrl-C, and children inherit that; some tests
# press Ctrl-C on theirs.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# What each part adds when it is there, and the Debian package that brings it.
PARTS: dict[str, tuple[str, str]] = {
    "redis-server": ("a local Redis 7", "redis-server"),
    "prometheus": ("scraping and rule evaluation for real", "prometheus"),
    "promtool": ("rule syntax and unit tests", "prometheus"),
    "prometheus-alertmanager": ("routing and delivery of alerts for real", "prometheus-alertmanager"),
    "amtool": ("Alertmanager configuration checks", "prometheus-alertmanager"),
    "chromium": ("the report in a real browser", "chromium"),
    "chromedriver": ("the report in a real browser", "chromium-driver"),
}


def require_part(name: str) -> Path:
    """Return the path of the binary ``name``; skip the test with a reason when it is missing (fail when CI=true)."""
    found = shutil.which(name)
    if found is not None:
        return Path(found)
    adds, package = PARTS[name]
    reason = f"{name} is not on this machine: it adds {adds}; `make services` installs Debian's {package}"
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have every part: {reason}")
    pytest.skip(reason)
