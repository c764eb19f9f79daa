"""The monitoring stack is new enough: Prometheus 2.40, Grafana 9.0, Alertmanager 0.25, as deployed and as run."""

from __future__ import annotations

import re

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.judge.model import PartState
from readiness.manifests import load_compose, version_of_image
from readiness.root import Root
from readiness.stack.base import StackInfo

LEAST = {"prometheus": (2, 40), "grafana": (9, 0), "alertmanager": (0, 25)}  # [I4]


@pytest.mark.claim("I4.versions")
def test_monitoring_is_new_enough(root: Root, stack: StackInfo, evidence: ClaimEvidence) -> None:
    """Images are pinned to a version that is new enough; so is each part that this run started, and rules and dashboard
    that it mounts are there.
    """
    file = root.path / "deploy" / "compose.yaml"
    if not file.is_file():
        pytest.skip("needs deploy/compose.yaml beside checks/: there is no deployment to examine")
    services = load_compose(file)
    cases: dict[str, bool] = {}
    for name, least in LEAST.items():
        image = services.get(name, {}).get("image", "no such service")
        cases[f"compose: {name} {image} is {'.'.join(map(str, least))} or newer"] = (
            version_of_image(image) >= least
        )
    for part in stack.parts:
        if part.name in LEAST and part.state != PartState.MISSING:
            found = tuple(int(number) for number in re.findall(r"\d+", part.version)[:2])
            cases[f"this run: {part.name} {part.version}"] = found >= LEAST[part.name]
    for name, service in services.items():
        for volume in service.get("volumes", []):
            host = str(volume).partition(":")[0]
            if host.startswith(("..", "./compose")):
                cases[f"compose: {name} mounts {host}, which is there"] = (file.parent / host).exists()
    wrong = [words for words, holds in cases.items() if not holds]
    evidence.cases(len(cases), len(wrong), wrong, "versions and files")
    assert not wrong, "; ".join(wrong)
