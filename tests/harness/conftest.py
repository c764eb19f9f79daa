"""The content of this repository, a copy of it to break, and the parts of this machine."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TOP_CONFTEST = REPOSITORY / "tests" / "conftest.py"


@pytest.fixture(scope="session")
def repository() -> Path:
    """The top of the checkout."""
    return REPOSITORY


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """A copy of the rooms rules/ and dashboards/, to be broken."""
    for room in ("rules", "dashboards"):
        shutil.copytree(REPOSITORY / room, tmp_path / "content" / room)
    return tmp_path / "content"


@pytest.fixture
def require_part(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """`require_part` of tests/conftest.py, by its plugin: several files of that name cannot be imported."""
    found: Callable[[str], Path] = pytestconfig.pluginmanager.get_plugin(str(TOP_CONFTEST)).require_part
    return found


@pytest.fixture(scope="session")
def load_check() -> Callable[[str], ModuleType]:
    """Import a file of checks/ (or a dashboard's source) by its path: these rooms are no packages."""

    def load(path: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(
            path.replace("/", "_").removesuffix(".py"), REPOSITORY / path
        )
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def edit(content: Path) -> Callable[[str, str, str], None]:
    """Replace a text that must be there in a file of the copy."""

    def replace(path: str, old: str, new: str) -> None:
        file = content / path
        before = file.read_text(encoding="utf-8")
        assert old in before, f"{path} does not hold {old!r}: this test would break nothing"
        file.write_text(before.replace(old, new), encoding="utf-8")

    return replace
