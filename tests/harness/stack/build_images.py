"""Docker images from the programs of this machine: nothing is pulled, so a machine without a registry can test.

    python tests/harness/stack/build_images.py

An image is a root file system with the program and the libraries that `ldd` names, handed to `docker import`. Its
manners are those of the official image as far as the stack uses them: the same entrypoints and folders, and
PostgreSQL makes its cluster at the first start as a user who is not root.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

IMAGES = {
    "redis": "readiness-test/redis:debian",
    "postgres": "readiness-test/postgres:debian",
    "prometheus": "readiness-test/prometheus:debian",
    "alertmanager": "readiness-test/alertmanager:debian",
}
"""Part -> image, as `readiness run --image` wants them."""

BUILD_SECONDS = 120.0
POSTGRES_UID = 999
PGDATA = "var/lib/postgresql/data"

TEMPLATES = Path("/usr/share/prometheus/alertmanager")
"""Debian's Alertmanager reads its default templates from there; the official one has them built in."""

_LIBRARY = re.compile(r"(/\S+) \(0x")
_START_POSTGRES = f"""#!/bin/sh
set -e
if [ ! -s /{PGDATA}/PG_VERSION ]; then
  auth="${{POSTGRES_HOST_AUTH_METHOD:-trust}}"
  "$PGBIN/initdb" -D /{PGDATA} -U "${{POSTGRES_USER:-postgres}}" -A "$auth" -E UTF8 --no-locale
  echo "host all all all $auth" >> /{PGDATA}/pg_hba.conf
  echo "listen_addresses = '*'" >> /{PGDATA}/postgresql.conf
fi
exec "$PGBIN/postgres" -D /{PGDATA} -k /tmp "$@"
"""


def postgres_folder() -> Path | None:
    """Folder of the newest PostgreSQL's programs on this machine (Debian keeps them off PATH)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    return found[0].parent if found else None


def missing_programs() -> list[str]:
    """What this machine lacks to build the images."""
    programs = {
        name: shutil.which(name) for name in ("redis-server", "prometheus", "prometheus-alertmanager")
    }
    programs["postgres"] = str(postgres_folder() or "")
    return [name for name, path in programs.items() if not path]


def build_all() -> None:
    """Make every image; takes about 10 s. CalledProcessError when docker refuses one."""
    redis, prometheus, alertmanager = (
        _which(name) for name in ("redis-server", "prometheus", "prometheus-alertmanager")
    )
    _import(
        IMAGES["redis"], [_tree({"usr/local/bin/redis-server": redis})], ["VOLUME /data", "WORKDIR /data"]
    )
    for part, program in (("prometheus", prometheus), ("alertmanager", alertmanager)):
        files = _files(TEMPLATES) if part == "alertmanager" else {}
        _import(IMAGES[part], [_tree({f"bin/{part}": program}), files], [f'ENTRYPOINT ["/bin/{part}"]'])
    _build_postgres()


def _build_postgres() -> None:
    folder = postgres_folder()
    if folder is None:
        raise SystemExit("expected PostgreSQL below /usr/lib/postgresql, found none: apt install postgresql")
    share = Path("/usr/share/postgresql") / folder.parent.name
    modules = sorted((folder.parent / "lib").glob("*.so"))
    zones = Path("/usr/share/zoneinfo")
    wanted = ("plpgsql.so", "dict_snowball.so", "euc_", "utf8_and")
    programs = {str(folder / name).lstrip("/"): folder / name for name in ("postgres", "initdb")}
    programs |= {str(one).lstrip("/"): one for one in modules if one.name.startswith(wanted)}
    programs |= {"bin/sh": Path("/bin/sh")}
    tree = _tree(programs)
    for source in (share, zones):
        tree |= _files(source)
    tree["docker-entrypoint.sh"] = _START_POSTGRES.encode()
    tree["etc/passwd"] = (
        f"root:x:0:0::/:/bin/sh\npostgres:x:{POSTGRES_UID}:{POSTGRES_UID}::/:/bin/sh\n".encode()
    )
    changes = [
        'ENTRYPOINT ["/docker-entrypoint.sh"]',
        f"USER {POSTGRES_UID}:{POSTGRES_UID}",
        f"VOLUME /{PGDATA}",
        f"ENV PGBIN={folder}",
    ]
    _import(IMAGES["postgres"], [tree], changes, folders={PGDATA: (POSTGRES_UID, 0o700), "tmp": (0, 0o1777)})


def _tree(programs: dict[str, Path]) -> dict[str, bytes]:
    """Path in the image -> content: the programs, and the libraries of each at its own place."""
    tree = {place: path.resolve().read_bytes() for place, path in programs.items()}
    for library in _libraries(programs.values()):
        tree[library.lstrip("/")] = Path(library).resolve().read_bytes()
    return tree


def _files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder of this machine, at its own place."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path).lstrip("/"): path.read_bytes() for path in found}


def _libraries(programs: Iterable[Path]) -> set[str]:
    """What `ldd` names; nothing for a program that is linked statically."""
    found: set[str] = set()
    for program in programs:
        said = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
        found.update(_LIBRARY.findall(said))
    return found


def _import(
    image: str,
    trees: Sequence[dict[str, bytes]],
    changes: Sequence[str],
    *,
    folders: dict[str, tuple[int, int]] | None = None,
) -> None:
    words = [word for change in changes for word in ("--change", change)]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for place, (owner, mode) in (folders or {}).items():
            folder = tarfile.TarInfo(place)
            folder.type, folder.mode, folder.uid, folder.gid = tarfile.DIRTYPE, mode, owner, owner
            archive.addfile(folder)
        for place, data in (item for tree in trees for item in tree.items()):
            entry = tarfile.TarInfo(place)
            entry.size, entry.mode = len(data), 0o755
            archive.addfile(entry, io.BytesIO(data))
    subprocess.run(
        ["docker", "import", *words, "-", image],
        input=content.getvalue(),
        env=dict(os.environ),
        stdout=subprocess.DEVNULL,
        timeout=BUILD_SECONDS,
        check=True,
    )


def _which(name: str) -> Path:
    found = shutil.which(name)
    if found is None:
        raise SystemExit(f"expected {name} on PATH, found none: `make services` installs it")
    return Path(found)


if __name__ == "__main__":
    if lacking := missing_programs():
        sys.exit(f"expected {', '.join(lacking)} on this machine, found none: `make services` installs them")
    build_all()
    print("\n".join(IMAGES.values()))
