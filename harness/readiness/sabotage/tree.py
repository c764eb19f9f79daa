"""A copy of the checkout that can be broken and mended: copy, edit, put back, compare.

Knows nothing of runs. Every change gives the file a modification second that it never had, so that Python never
mistakes compiled code of one state for that of another.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from readiness.errors import BadInput, HarnessFailure
from readiness.sabotage.catalogue import Edit, Sabotage

ROOMS: Final = ("system", "harness", "checks", "rules", "dashboards", "loadtests")
EXTRA: Final = ("deploy", "reports", "pyproject.toml", "requirements.txt")
_CACHES: Final = ("__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis")
# Of reports/ a run reads the profile and what belongs to it, not what earlier runs wrote.
_OUTPUT: Final = ("runs", "latest", "faults")


def require_checkout(folder: Path) -> Path:
    """Return the resolved ``folder``; BadInput when it is no checkout (a wheel carries no system to break)."""
    top = folder.resolve()
    missing = [name for name in (*ROOMS, "reports/scorecard.yaml") if not (top / name).exists()]
    if missing:
        raise BadInput(
            f"{folder}: expected a checkout of the repository, but {', '.join(missing)} is missing. The sabotages"
            " edit the system's source, which an installed wheel does not offer: call this in a checkout, or name"
            " one with --root."
        )
    return top


class Tree:
    """One copy. `digest` is that of its content now; `clean_digest` that of the copy as it was made."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clean_digest = self.digest()
        self._before: dict[Path, bytes] = {}
        self._second = int(max(file.stat().st_mtime for file in self._files())) + 1

    @classmethod
    def copy(cls, source: Path, target: Path) -> Tree:
        """Copy what a run needs of ``source`` to the new folder ``target``."""
        for room in ROOMS:
            shutil.copytree(
                source / room, target / room, ignore=shutil.ignore_patterns(*_CACHES), symlinks=True
            )
        for name in EXTRA:
            there, here = source / name, target / name
            if there.is_dir():
                left_out = shutil.ignore_patterns(*_CACHES, *(_OUTPUT if name == "reports" else ()))
                shutil.copytree(there, here, ignore=left_out, symlinks=True)
            elif there.is_file():
                here.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(there, here)
        return cls(target)

    def digest(self) -> str:
        """SHA-256 over names and contents of every file, compiled code left out."""
        total = hashlib.sha256()
        for file in self._files():
            total.update(f"{file.relative_to(self.path).as_posix()}\0".encode())
            total.update(hashlib.sha256(file.read_bytes()).digest())
        return total.hexdigest()

    def apply(self, sabotage: Sabotage) -> None:
        """Make every edit of ``sabotage``; all or none. Raises BadInput for one that does not fit the tree."""
        changed: dict[Path, bytes] = {}
        for edit in sabotage.edits:
            file = self.path / edit.file
            text = changed[file].decode() if file in changed else _read(sabotage, edit, self.path)
            changed[file] = _replaced(sabotage, edit, text).encode()
        for file, content in changed.items():
            self._before.setdefault(file, file.read_bytes())
            self._write(file, content)

    def revert(self) -> None:
        """Put every edited file back. Raises HarnessFailure when the tree is not the clean one afterwards."""
        for file, content in self._before.items():
            self._write(file, content)
        self._before.clear()
        if self.digest() != self.clean_digest:
            raise HarnessFailure(
                f"sabotage: expected the copy {self.path} as it was before the edits, got other content;"
                " a run must have written into it"
            )

    def _write(self, file: Path, content: bytes) -> None:
        file.write_bytes(content)
        self._second += 1
        os.utime(file, (self._second, self._second))

    def _files(self) -> Iterator[Path]:
        for folder, folders, names in os.walk(self.path):
            folders[:] = sorted(name for name in folders if name != "__pycache__")
            yield from (Path(folder) / name for name in sorted(names) if not name.endswith(".pyc"))


def check_applies(sabotage: Sabotage, top: Path) -> None:
    """Raise BadInput when an edit of ``sabotage`` does not fit the tree at ``top`` any more; writes nothing."""
    texts: dict[str, str] = {}
    for edit in sabotage.edits:
        texts[edit.file] = _replaced(sabotage, edit, texts.get(edit.file) or _read(sabotage, edit, top))


def _read(sabotage: Sabotage, edit: Edit, top: Path) -> str:
    try:
        return (top / edit.file).read_text(encoding="utf-8")
    except OSError as error:
        raise BadInput(
            f"sabotage {sabotage.id}: {edit.file}: expected a file to edit, got: {error.strerror or error}."
            f" Correct {sabotage.id}.yaml."
        ) from None


def _replaced(sabotage: Sabotage, edit: Edit, text: str) -> str:
    count = text.count(edit.old)
    if count != 1:
        shown = " ".join(edit.old.split())[:80]
        raise BadInput(
            f"sabotage {sabotage.id}: {edit.file}: expected {shown!r} exactly once, got it {count} times."
            f" Correct {sabotage.id}.yaml."
        )
    return text.replace(edit.old, edit.new)
