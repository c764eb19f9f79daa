"""Deployment files that were weakened are found: each edit of a copy fails the check that reads it, by its reason."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

from readiness.errors import BadInput
from readiness.manifests import cores, load_manifests, size, version_of_image
from readiness.root import Root

KUBERNETES = "checks/resource_management/test_kubernetes.py"
REDIS = "checks/durable_worker/test_redis_manifests.py"
VERSIONS = "checks/metrics/test_versions.py"
K8S, R, V = KUBERNETES, REDIS, VERSIONS


@dataclass
class Recorded:
    """What a check recorded."""

    cases_seen: list[tuple[int, int]] = field(default_factory=list)

    def cases(self, n: int, failures: int, examples: object, what: str) -> None:
        self.cases_seen.append((n, failures))


@dataclass(frozen=True)
class NoParts:
    """A run that started nothing."""

    parts: tuple[object, ...] = ()


Checked = Callable[[str], Recorded]


@pytest.fixture
def place(tmp_path: Path, repository: Path) -> Path:
    """A copy of what the deployment files are and mount."""
    for room in ("deploy", "rules", "dashboards"):
        shutil.copytree(repository / room, tmp_path / room)
    return tmp_path


@pytest.fixture
def check(place: Path, load_check: Callable[[str], ModuleType]) -> Checked:
    """Run a check on the copy."""

    def run(path: str) -> Recorded:
        module, recorded = load_check(path), Recorded()
        root = Root(path=place, origin="given", reports=place / "reports")
        if path == VERSIONS:
            module.test_monitoring_is_new_enough(root, NoParts(), recorded)
        elif path == REDIS:
            module.test_redis_is_replicated_persistent_and_shut(root, recorded)
        else:
            module.test_manifests_have_what_the_specification_asks_for(root, recorded)
        return recorded

    return run


@pytest.mark.parametrize("path", [KUBERNETES, REDIS, VERSIONS])
def test_what_is_shipped_holds(check: Checked, path: str) -> None:
    """The silent case, with enough cases to mean something."""
    [(n, failures)] = check(path).cases_seen
    assert failures == 0
    assert n >= 3


@pytest.mark.parametrize(
    ("path", "file", "old", "new", "reason"),
    [
        (K8S, "worker.yaml", "cpu: 500m, memory: 1Gi", "cpu: 50m, memory: 1Gi", "requests 500m CPU"),
        (K8S, "worker.yaml", "cpu: 2000m, memory: 4Gi", "cpu: 2000m, memory: 4G", "worker: limits 4 Gi"),
        (K8S, "api.yaml", "            limits: {cpu: 2000m, memory: 4Gi}\n", "", "api: limits 2000m CPU"),
        (K8S, "api.yaml", "replicas: 2", "replicas: 1", "api: one Deployment of at least two"),
        (K8S, "api.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "api: runs as nobody's user"),
        (K8S, "worker.yaml", "allowPrivilegeEscalation: false", "allowPrivilegeEscalation: true", "worker: gains"),
        (K8S, "api.yaml", "readinessProbe", "startupProbe", "api: asks whether it is ready"),
        (K8S, "api.yaml", "ragworker:0.1.0", "ragworker:latest", "api: an image of one version"),
        (K8S, "settings.yaml", '  RAG_MAX_RETRIES: "4"\n', "", "settings: RAG_MAX_RETRIES is set"),
        (K8S, "settings.yaml", 'RATE_LIMIT: "1000"', 'RATE_LIMIT: "5000"', "RATE_LIMIT is 1000"),
        (K8S, "settings.yaml", 'WORKER: "true"', 'WORKER: "false"', "USE_DURABLE_WORKER is true"),
        (K8S, "autoscaling.yaml", "maxReplicas: 10", "maxReplicas: 2", "worker: an autoscaler for it"),
        (K8S, "autoscaling.yaml", "name: ragworker-api}", "name: ragworker-apis}", "api: an autoscaler"),
        (K8S, "disruption.yaml", "component: worker}", "component: wroker}", "worker: a disruption budget"),
        (K8S, "network-policy.yaml", "  podSelector: {}\n  policyTypes: [Ingress]",
         "  podSelector: {}\n  policyTypes: [Ingress]\n  ingress: [{}]", "network: denied by default"),
        (R, "redis.yaml", "replicas: 3", "replicas: 1", "redis: three replicas"),
        (R, "redis.yaml", "appendonly yes", "appendonly no", "redis: append-only file"),
        (R, "redis.yaml", "appendfsync everysec", "appendfsync no", "redis: written to disk"),
        (R, "redis.yaml", "- {name: data, mountPath: /data}", "- {name: run, mountPath: /data}", "a volume of its own"),
        (R, "redis.yaml", "    port 0\n", "    port 6380\n", "redis: the plain port is closed"),
        (R, "redis.yaml", "tls-replication yes", "tls-replication no", "redis: TLS between nodes"),
        (R, "redis.yaml", 'echo "requirepass $REDIS_PASSWORD"', "true", "redis: a password for clients"),
        (R, "redis.yaml", 'echo "masterauth $REDIS_PASSWORD"', 'echo "masterauth hunter2"', "no password is"),
        (R, "redis.yaml", "policy noeviction", "policy allkeys-lru", "throws no job away"),
        (R, "redis.yaml", "secretKeyRef: {name: redis-auth", "configMapKeyRef: {name: redis-auth", "from a secret"),
        (R, "sentinel.yaml", "6379 2", "6379 1", "sentinel: two must agree"),
        (R, "sentinel.yaml", "replicas: 3", "replicas: 1", "sentinel: three"),
        (R, "sentinel.yaml", 'echo "port 0"', 'echo "port 26380"', "sentinel: TLS only"),
        (V, "compose.yaml", "prom/prometheus:v2.53.2", "prom/prometheus:v2.39.1", "compose: prometheus"),
        (V, "compose.yaml", "grafana/grafana:10.4.5", "grafana/grafana", "compose: grafana"),
        (V, "compose.yaml", "prom/alertmanager:v0.27.0", "prom/alertmanager:v0.24.0", "compose: alertmanager"),
        (V, "compose.yaml", "../rules/ragworker.yml", "../rules/gone.yml", "mounts ../rules/gone.yml"),
    ],
)  # fmt: skip
def test_what_is_weakened_is_found(
    check: Checked, place: Path, path: str, *, file: str, old: str, new: str, reason: str
) -> None:
    """One edit of the copy, and the check fails by the name of what it broke."""
    edited = place / "deploy" / ("" if path == VERSIONS else "kubernetes") / file
    text = edited.read_text(encoding="utf-8")
    assert old in text, f"{file} does not hold {old!r}: this test would break nothing"
    edited.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(AssertionError) as caught:
        check(path)
    assert reason in str(caught.value)


@pytest.mark.parametrize("path", [KUBERNETES, REDIS, VERSIONS])
def test_without_deployment_files_nothing_is_claimed(check: Checked, place: Path, path: str) -> None:
    """A content root without deploy/ skips, and the claim is NOT_RUN; it never passes."""
    shutil.rmtree(place / "deploy")
    with pytest.raises(pytest.skip.Exception, match="needs deploy/"):
        check(path)


def test_amounts_and_versions() -> None:
    """Amounts in cores and bytes; what is none compares with nothing."""
    assert (cores("500m"), cores("2"), cores(0.5)) == (0.5, 2.0, 0.5)
    assert (size("1Gi"), size("4G"), size("128Mi"), size(7)) == (2**30, 4e9, 2**27, 7)
    assert all(math.isnan(amount) for amount in (cores("much"), size("1 Gi"), size(None), cores("")))
    assert version_of_image("a.example:5000/prom/prometheus:v2.53.2") == (2, 53, 2)
    assert [version_of_image(image) for image in ("redis", "redis:latest", "host:5000/redis", None)] == [
        ()
    ] * 4


def test_files_that_are_no_yaml_are_named(tmp_path: Path) -> None:
    """A broken file is one line with its name; objects without a kind are passed over."""
    (tmp_path / "a.yaml").write_text("kind: [", encoding="utf-8")
    with pytest.raises(BadInput, match=r"a\.yaml: expected YAML"):
        load_manifests(tmp_path)
    (tmp_path / "a.yaml").write_text(
        "- 1\n---\nkind: Service\nmetadata: {name: b}\nspec: {}\n---\n", encoding="utf-8"
    )
    [found] = load_manifests(tmp_path)
    assert (found.kind, found.name, found.get("spec.a.b", 3), found.containers) == ("Service", "b", 3, [])
