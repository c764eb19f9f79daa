"""The Kubernetes manifests give API and workers the specified resources, and scale, spread and shut them in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.manifests import WORKLOADS, Manifest, cores, load_manifests, size
from readiness.root import Root

REQUESTS = (0.5, 2**30)  # cores, bytes [I2]
LIMITS = (2.0, 4 * 2**30)
COMPONENTS = ("api", "worker")
VARIABLES = (
    "USE_DURABLE_WORKER", "RAG_EMBEDDING_BATCH_SIZE", "RAG_EMBEDDING_RATE_LIMIT", "RAG_EMBEDDING_CONCURRENCY",
    "RAG_MAX_RETRIES", "PROMETHEUS_ENABLED", "GRAFANA_DASHBOARD_ENABLED", "ALERTMANAGER_WEBHOOK_URL",
    "DISTRIBUTED_TRACING_ENABLED", "LOG_FORMAT", "LOG_LEVEL",
)  # fmt: skip
# What the specification names as operating points of production.
REQUIRED = {
    "USE_DURABLE_WORKER": ("true",),
    "RAG_EMBEDDING_BATCH_SIZE": ("32", "64"),
    "RAG_EMBEDDING_RATE_LIMIT": ("1000",),
    "RAG_EMBEDDING_CONCURRENCY": ("3",),
    "RAG_MAX_RETRIES": ("4",),
    "LOG_FORMAT": ("json",),
}
SECRET_WORDS = ("SECRET", "PASSWORD", "KEY", "_URL")
COMPONENT = "app.kubernetes.io/component"


@pytest.mark.claim("I2.kubernetes")
def test_manifests_have_what_the_specification_asks_for(root: Root, evidence: ClaimEvidence) -> None:
    """Resources, settings, replicas, probes, autoscaling, disruption budgets, network policies and privileges."""
    folder = root.path / "deploy" / "kubernetes"
    if not folder.is_dir():
        pytest.skip("needs deploy/kubernetes beside checks/: there are no manifests to examine")
    manifests = load_manifests(folder)
    cases: dict[str, bool] = {}
    for component in COMPONENTS:
        found = [
            one for one in manifests if one.kind == "Deployment" and one.labels.get(COMPONENT) == component
        ]
        cases[f"{component}: one Deployment of at least two replicas"] = (
            len(found) == 1 and found[0].get("spec.replicas", 0) >= 2
        )
        for one in found:
            cases |= resources(component, one.containers)
            cases |= inside(component, one)
            cases[f"{component}: an autoscaler for it"] = any(scales(other, one) for other in manifests)
            cases[f"{component}: a disruption budget for it"] = any(
                other.kind == "PodDisruptionBudget"
                and selects(other.get("spec.selector.matchLabels"), one.labels)
                for other in manifests
            )
    probes = [
        container for one in manifests if one.labels.get(COMPONENT) == "api" for container in one.containers
    ]
    cases["api: asks whether it is ready and alive"] = bool(probes) and all(
        {"readinessProbe", "livenessProbe"} <= set(container) for container in probes
    )
    cases |= settings(manifests)
    cases |= shut_in(manifests)
    wrong = [name for name, holds in cases.items() if not holds]
    evidence.cases(len(cases), len(wrong), wrong, "what a manifest must have")
    assert not wrong, f"{len(wrong)} of {len(cases)}: {'; '.join(wrong)}"


def resources(component: str, containers: Sequence[Mapping[str, Any]]) -> dict[str, bool]:
    """Requests 500m and 1 Gi, limits 2000m and 4 Gi, exactly."""
    amounts = [
        [given.get(kind, {}).get(name, "") for kind in ("requests", "limits") for name in ("cpu", "memory")]
        for given in (container.get("resources", {}) for container in containers)
    ]
    expected = (*REQUESTS, *LIMITS)
    read = (cores, size, cores, size)
    words = ("requests 500m CPU", "requests 1 Gi", "limits 2000m CPU", "limits 4 Gi")
    return {
        f"{component}: {words[n]}": bool(amounts) and all(read[n](row[n]) == expected[n] for row in amounts)
        for n in range(len(words))
    }


def inside(component: str, deployment: Manifest) -> dict[str, bool]:
    """No root, no privileges, a root file system that nobody writes to, settings from the map, secrets by reference."""
    pod = deployment.get("spec.template.spec", {})
    containers = deployment.containers
    secure = [container.get("securityContext", {}) for container in containers]
    sources = [source for container in containers for source in container.get("envFrom", [])]
    plain = [entry for container in containers for entry in container.get("env", []) if "value" in entry]
    return {
        f"{component}: runs as nobody's user": pod.get("securityContext", {}).get("runAsNonRoot") is True,
        f"{component}: gains no privileges": bool(secure) and all(
            one.get("allowPrivilegeEscalation") is False and one.get("readOnlyRootFilesystem") is True for one in secure
        ),
        f"{component}: reads the settings": any("configMapRef" in source for source in sources),
        f"{component}: reads its secrets by reference": any("secretRef" in source for source in sources)
        and not [entry for entry in plain if any(word in entry["name"] for word in SECRET_WORDS)],
        f"{component}: an image of one version": all(
            ":" in str(container.get("image")) and not str(container.get("image")).endswith(":latest")
            for container in containers
        ),
    }  # fmt: skip


def scales(other: Manifest, deployment: Manifest) -> bool:
    """Whether `other` is an autoscaler of the deployment with room to grow and something to measure."""
    if other.kind not in ("HorizontalPodAutoscaler", "ScaledObject"):
        return False
    low = other.get("spec.minReplicas", other.get("spec.minReplicaCount", 0))
    high = other.get("spec.maxReplicas", other.get("spec.maxReplicaCount", 0))
    measured = other.get("spec.metrics") or other.get("spec.triggers")
    return other.get("spec.scaleTargetRef.name") == deployment.name and 2 <= low < high and bool(measured)


def selects(wanted: object, labels: Mapping[str, str]) -> bool:
    """Whether a selector's labels are among these; an empty selector selects all."""
    return isinstance(wanted, Mapping) and all(labels.get(key) == value for key, value in wanted.items())


def settings(manifests: Sequence[Manifest]) -> dict[str, bool]:
    """The eleven variables are all in one map, at their operating points."""
    maps = [dict(one.get("data", {})) for one in manifests if one.kind == "ConfigMap"]
    data = max(maps, key=lambda one: len(set(one) & set(VARIABLES)), default={})
    named = {f"settings: {name} is set": bool(str(data.get(name, ""))) for name in VARIABLES}
    return named | {
        f"settings: {name} is {' or '.join(allowed)}": str(data.get(name)) in allowed
        for name, allowed in REQUIRED.items()
    }


def shut_in(manifests: Sequence[Manifest]) -> dict[str, bool]:
    """Nothing is reached but what a policy names, and every workload that listens has a policy."""
    policies = [one for one in manifests if one.kind == "NetworkPolicy"]
    default = [one for one in policies if one.get("spec.podSelector") == {} and not one.get("spec.ingress")]
    held = [one for one in manifests if one.kind == "Secret" and (one.get("data") or one.get("stringData"))]
    return {
        "network: denied by default": any("Ingress" in one.get("spec.policyTypes", []) for one in default),
        "network: no policy lets everybody in": not [
            one for one in policies for rule in one.get("spec.ingress", []) or [] if not rule.get("from")
        ],
        "no secret is written into a manifest": not held,
        "there are workloads": any(one.kind in WORKLOADS for one in manifests),
    }
