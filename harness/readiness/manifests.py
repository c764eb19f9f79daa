"""Read deployment files: Kubernetes manifests and a Compose file, as far as checks ask about them.

Reads YAML only; what a deployment must have is the checks' to say. Amounts are in base units: cores and bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from readiness.errors import BadInput

CPU = re.compile(r"(\d+(?:\.\d+)?)(m?)")
MEMORY = re.compile(r"(\d+(?:\.\d+)?)([KMGT]i?)?")
FACTORS = {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object: its file's name, its kind and name, and all of it."""

    file: str
    kind: str
    name: str
    body: Mapping[str, Any]

    def get(self, path: str, default: Any = None) -> Any:
        """Return what stands at a path of keys like `spec.template.spec`; `default` where a key is missing."""
        value: Any = self.body
        for key in path.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return default
            value = value[key]
        return value

    @property
    def containers(self) -> list[Mapping[str, Any]]:
        """The containers of a workload; none of other kinds."""
        return list(self.get("spec.template.spec.containers", []) or [])

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of a workload's pods."""
        return dict(self.get("spec.template.metadata.labels", {}) or {})


def load_manifests(folder: Path) -> list[Manifest]:
    """Return every object of the YAML files in a folder that has a kind and a name; BadInput for what is no YAML."""
    return [found for path in sorted(folder.glob("*.y*ml")) for found in _objects(path)]


def _objects(path: Path) -> Iterator[Manifest]:
    for body in _documents(path):
        if isinstance(body, dict) and "kind" in body:
            name = (body.get("metadata") or {}).get("name", "")
            yield Manifest(path.name, str(body["kind"]), str(name), body)


def load_compose(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return the services of a Compose file by name."""
    [body] = list(_documents(path)) or [{}]
    services = body.get("services") if isinstance(body, dict) else None
    return dict(services) if isinstance(services, dict) else {}


def _documents(path: Path) -> Iterator[Any]:
    try:
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path.name}: expected YAML, got: {' '.join(str(error).split())}.") from None


def cores(amount: object) -> float:
    """Return an amount of CPU in cores: "500m" is 0.5. NaN for what is none, which compares with nothing."""
    match = CPU.fullmatch(str(amount))
    return float(match[1]) / (1000 if match[2] else 1) if match else float("nan")


def size(amount: object) -> float:
    """Return an amount of memory in bytes: "1Gi" is 2**30. NaN for what is none."""
    match = MEMORY.fullmatch(str(amount))
    return float(match[1]) * FACTORS.get(match[2] or "", 1.0) if match else float("nan")


def version_of_image(image: object) -> tuple[int, ...]:
    """Return the version in an image's tag: "prom/prometheus:v2.53.2" is (2, 53, 2); empty where it is not pinned."""
    tag = str(image).rpartition("/")[2].partition(":")[2]
    match = re.match(r"v?(\d+(?:\.\d+)+)", tag)
    return tuple(int(part) for part in match[1].split(".")) if match else ()
