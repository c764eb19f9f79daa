"""The Redis of the deployment: three nodes that persist and fail over, and talk to nobody without TLS and password."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from readiness.checking.recorder import ClaimEvidence
from readiness.manifests import Manifest, load_manifests
from readiness.root import Root

NODES = 3  # [I3]
NAME = "app.kubernetes.io/name"


@pytest.mark.claim("I3.redis")
def test_redis_is_replicated_persistent_and_shut(root: Root, evidence: ClaimEvidence) -> None:
    """Replicas, volumes, append-only file, password, TLS, no plain port, Sentinel with a quorum."""
    folder = root.path / "deploy" / "kubernetes"
    if not folder.is_dir():
        pytest.skip("needs deploy/kubernetes beside checks/: there are no manifests to examine")
    manifests = load_manifests(folder)
    redis, sentinel = stateful(manifests, "redis"), stateful(manifests, "redis-sentinel")
    config, said = redis_config(manifests), text_of(manifests, "redis-config")
    watch = text_of(manifests, "redis-sentinel-config")
    cases = {
        "redis: three replicas": redis is not None and redis.get("spec.replicas") == NODES,
        "redis: a volume of its own for its data": claims_volume(redis, "/data"),
        "redis: no two nodes on one machine": apart(redis),
        "redis: append-only file": config.get("appendonly") == "yes",
        "redis: written to disk at least every second": config.get("appendfsync") in ("everysec", "always"),
        "redis: keeps its data on the volume": config.get("dir") == "/data",
        "redis: throws no job away for room": config.get("maxmemory-policy") == "noeviction",
        "redis: the plain port is closed": config.get("port") == "0",
        "redis: TLS for clients": config.get("tls-port") == "6379" and "tls-cert-file" in config,
        "redis: TLS between nodes": config.get("tls-replication") == "yes",
        "redis: a password for clients": "requirepass $REDIS_PASSWORD" in said,
        "redis: a password between nodes": "masterauth $REDIS_PASSWORD" in said,
        "redis: protected mode": config.get("protected-mode", "yes") == "yes",
        "redis: the password comes from a secret": secret_password(redis),
        "redis: certificates come from a secret": secret_volume(redis, "/tls"),
        "redis: a primary without a replica does not accept": int(config.get("min-replicas-to-write", "0")) >= 1,
        "sentinel: three": sentinel is not None and sentinel.get("spec.replicas") == NODES,
        "sentinel: two must agree": bool(re.search(r"sentinel monitor \S+ \S+ 6379 2\b", watch)),
        "sentinel: TLS only": '"port 0"' in watch and "tls-port 26379" in watch and "tls-replication yes" in watch,
        "sentinel: has the password, and asks for it": "sentinel auth-pass" in watch and '"requirepass' in watch,
        "sentinel: the password comes from a secret": secret_password(sentinel),
        "no password is written down": not re.search(r"(requirepass|masterauth|auth-pass \S+) (?!\$)\S", said + watch),
    }  # fmt: skip
    wrong = [name for name, holds in cases.items() if not holds]
    evidence.cases(len(cases), len(wrong), wrong, "what the Redis of the deployment must have")
    assert not wrong, f"{len(wrong)} of {len(cases)}: {'; '.join(wrong)}"


def stateful(manifests: list[Manifest], name: str) -> Manifest | None:
    """The one StatefulSet of that application."""
    found = [one for one in manifests if one.kind == "StatefulSet" and one.labels.get(NAME) == name]
    return found[0] if len(found) == 1 else None


def text_of(manifests: list[Manifest], name: str) -> str:
    """All files of a ConfigMap."""
    maps = [one for one in manifests if one.kind == "ConfigMap" and one.name == name]
    return "\n".join(str(text) for one in maps for text in one.get("data", {}).values())


def redis_config(manifests: list[Manifest]) -> Mapping[str, str]:
    """The directives of redis.conf; of a repeated one the last, as Redis reads it."""
    maps = [one for one in manifests if one.kind == "ConfigMap" and one.name == "redis-config"]
    lines = [
        line.split(None, 1)
        for one in maps
        for line in str(one.get("data", {}).get("redis.conf", "")).splitlines()
    ]
    return {words[0]: words[1].strip() for words in lines if len(words) == 2 and not words[0].startswith("#")}


def claims_volume(workload: Manifest | None, path: str) -> bool:
    """Whether a path of every container is a claimed volume, which outlives the pod."""
    if workload is None:
        return False
    claims = {claim["metadata"]["name"] for claim in workload.get("spec.volumeClaimTemplates", [])}
    mounts = [
        {mount["mountPath"]: mount["name"] for mount in one.get("volumeMounts", [])}
        for one in workload.containers
    ]
    return bool(mounts) and all(mount.get(path) in claims for mount in mounts)


def apart(workload: Manifest | None) -> bool:
    """Whether the scheduler must put its pods on different machines."""
    if workload is None:
        return False
    rules = workload.get(
        "spec.template.spec.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution", []
    )
    return any(rule.get("topologyKey") == "kubernetes.io/hostname" for rule in rules)


def secret_password(workload: Manifest | None) -> bool:
    """Whether REDIS_PASSWORD is a reference to a secret in every container."""
    if workload is None or not workload.containers:
        return False
    found = [
        entry.get("valueFrom", {}).get("secretKeyRef")
        for one in workload.containers
        for entry in one.get("env", [])
        if entry.get("name") == "REDIS_PASSWORD"
    ]
    return len(found) == len(workload.containers) and all(found)


def secret_volume(workload: Manifest | None, path: str) -> bool:
    """Whether what is mounted at a path is a secret."""
    if workload is None:
        return False
    secrets = {one["name"] for one in workload.get("spec.template.spec.volumes", []) if "secret" in one}
    mounts = [mount for one in workload.containers for mount in one.get("volumeMounts", [])]
    return any(mount["mountPath"] == path and mount["name"] in secrets for mount in mounts)
