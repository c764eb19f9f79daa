"""Keep documents on disk for as long as a job reads them, privately, and leave none behind (spec D4).

One folder of mode 0700; files named `<owner>.<random>`, mode 0600, overwritten with random bytes and unlinked
when the job is over. A process that is killed leaves its files; the next sweep of any worker on this machine
finds and wipes them. Whether the owner lives is asked of the kernel, not of Redis: every file is locked
(flock) by its owner, and the kernel drops the lock at the moment the owner dies, kill -9 included. So a slow owner
whose lease ran out is never robbed of a file that it still reads, and sweeping works while Redis is away.

What overwriting proves depends on the file system, and `overwriting_proves` says it for the folder at hand.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final

try:
    import fcntl
except ImportError:  # Windows: no flock; files are wiped in order, but a killed process' files are not swept
    fcntl = None  # type: ignore[assignment]  # no such module on Windows

#: Bytes written at a time when wiping.
PIECE_BYTES: Final = 1 << 20

#: A sweep may catch a new file in the instant before it is locked; its owner then makes another.
CREATE_TRIES: Final = 8

#: Files looked at by one sweep; the rest is for the next.
SWEEP_LIMIT: Final = 1000

_MEMORY: Final = "the bytes were only in memory, which is overwritten; swap could have kept a copy"
_IN_PLACE: Final = (
    "the same blocks are written over; an SSD may have remapped them, a snapshot below keeps the old ones"
)
_COPIED: Final = (
    "nothing: new blocks are written and the old ones stay until they are reused; encrypt the volume, "
    "or put RAG_TEMP_DIR on tmpfs"
)
_UNKNOWN: Final = "nothing is known about this file system; encrypt the volume, or put RAG_TEMP_DIR on tmpfs"

#: What overwriting a file proves, by the type of file system that Linux reports. On ext3 and ext4 this is so with their
#: default data=ordered; XFS shares blocks only between files that were reflinked, which these never are.
OVERWRITING_PROVES: Final = MappingProxyType(
    dict.fromkeys(("tmpfs", "ramfs"), _MEMORY)
    | dict.fromkeys(("ext2", "ext3", "ext4", "xfs", "vfat"), _IN_PLACE)
    | dict.fromkeys(("btrfs", "zfs", "bcachefs", "f2fs", "nilfs2", "overlay", "fuse-overlayfs"), _COPIED)
)


class PrivateFiles:
    """The folder, seen by one owner (a worker id)."""

    def __init__(self, folder: Path, *, owner: str) -> None:
        self.folder = folder
        self._owner = owner

    def prepare(self) -> None:
        """Make the folder, or refuse one that others can read. PermissionError, OSError."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if hasattr(os, "getuid") and self.folder.stat().st_uid != os.getuid():
            raise PermissionError(f"{self.folder}: expected a folder of this user's own. Set RAG_TEMP_DIR.")
        self.folder.chmod(0o700)

    @contextmanager
    def hold(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """An empty private file, open for writing; wiped and removed at the end of the block, come what may."""
        self.prepare()
        path, file = self._create()
        try:
            yield path, file
        finally:
            with file:
                wipe(file, path)

    def sweep(self) -> int:
        """Wipe the files of dead owners; how many there were."""
        if fcntl is None or not self.folder.is_dir():
            return 0
        swept = 0
        with os.scandir(self.folder) as entries:
            names = [
                entry.name for entry, _ in zip(entries, range(SWEEP_LIMIT), strict=False) if entry.is_file()
            ]
        for name in names:
            # A file that vanishes meanwhile was wiped by its owner or by another sweep.
            with suppress(OSError), (self.folder / name).open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                wipe(file, self.folder / name)
                swept += 1
        return swept

    def _create(self) -> tuple[Path, IO[bytes]]:
        for _ in range(CREATE_TRIES):
            path = self.folder / f"{self._owner}.{secrets.token_hex(12)}"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            file = os.fdopen(descriptor, "w+b")
            try:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_nlink:
                    return path, file
            except BlockingIOError:
                pass
            file.close()
        raise OSError(f"{self.folder}: could not lock a new file in {CREATE_TRIES} tries")


def wipe(file: IO[bytes], path: Path | None = None) -> None:
    """Overwrite an open file with random bytes, force them to the disk, unlink it if it has a name."""
    try:
        left = file.seek(0, os.SEEK_END)
        file.seek(0)
        while left > 0:
            left -= file.write(os.urandom(min(left, PIECE_BYTES)))
        file.flush()
        os.fsync(file.fileno())
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


def overwriting_proves(folder: Path, *, mounts: Path = Path("/proc/self/mountinfo")) -> tuple[str, str]:
    """The type of the file system of `folder`, and what overwriting a file proves there, in one sentence.

    From Linux' table of mounts (proc(5), /proc/pid/mountinfo); elsewhere the type is `unknown`. Device
    numbers would not do: those of a btrfs folder are not in the table.
    """
    found, depth, place = "unknown", 0, folder.resolve()
    with suppress(OSError), mounts.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            # 36 35 98:0 /root /mount/point options [optional ...] - type source options
            mount, _, kind = line.partition(" - ")
            point = Path(mount.split()[4].replace("\\040", " "))
            # Of several mounts on one point the last one is seen.
            if place.is_relative_to(point) and len(point.parts) >= depth:
                found, depth = kind.split()[0], len(point.parts)
    return found, OVERWRITING_PROVES.get(found, _UNKNOWN)
