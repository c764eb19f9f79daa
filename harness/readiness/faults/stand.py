"""Build what a scenario needs: its own Redis, proxies, a lane with API and workers. Everything ends with the scene.

The kernel ends children together with the thread that started them (stack/processes.py), so workers start in the
threads of a pool that lives as long as the scene.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import cast
from urllib.parse import urlsplit

from readiness.errors import HarnessFailure
from readiness.faults.act import FaultProxy, Scene
from readiness.faults.scenario import Scenario, Stand
from readiness.stack.redis import DOCKER, start_private_redis

PROXY_MODULE = "readiness.faults.proxy"
START_SECONDS = 45.0
"""An API and its workers on a machine with busy cores."""


def begin_stand(scene: Scene, scenario: Scenario) -> None:
    """What acts may count on in `prepare`: the settings of the scenario."""
    scene.settings.update(scenario.stand.settings)
    scene.redis_options.update(scenario.stand.redis_options)


def build_stand(scene: Scene, scenario: Scenario) -> None:
    """Start Redis, proxies, API and workers in this order. StackError, TargetError when one does not come up."""
    stand = scenario.stand
    if stand.redis == "own":
        _start_own_redis(scene)
    if stand.redis == "act" and scene.redis_url is None:
        raise HarnessFailure(f"fault scenario {scene.name}: expected an act to set scene.redis_url, none did")
    _start_proxies_before_target(scene, stand)
    starters = ThreadPoolExecutor(max(1, stand.workers) + 1, f"stand-{scene.name}")
    scene.cleanup.callback(starters.shutdown, wait=False)
    lane = scene.cleanup.enter_context(
        scene.target.lane(f"fault-{scene.name}", settings=scene.settings, redis_url=scene.redis_url)
    )
    scene.lane_or_none = lane
    lane.script_embedding([], latency_ms=stand.embedding_ms)
    api = starters.submit(lane.start_api, prefix=scene.api_prefix)
    workers = [starters.submit(lane.start_worker, prefix=scene.worker_prefix) for _ in range(stand.workers)]
    api.result(timeout=START_SECONDS)
    for starting in workers:
        starting.result(timeout=START_SECONDS)
    if "api" in stand.proxies:
        proxy = _before(scene, "api", lane.api_url)
        lane.reach_api_at(f"http://127.0.0.1:{proxy.port}")


def _start_own_redis(scene: Scene) -> None:
    provider = scene.stack.redis_provider
    # A prefix puts the server on a disk or library of this machine: a container has its own.
    ours = provider == "external" or (provider == DOCKER and scene.redis_prefix)
    wanted = "auto" if ours else provider
    server = start_private_redis(
        scene.run_dir,
        f"redis-{scene.name}",
        wanted=wanted,
        options=scene.redis_options,
        prefix=scene.redis_prefix,
    )
    scene.cleanup.callback(server.stop)
    scene.redis, scene.redis_url = server, server.url


def _start_proxies_before_target(scene: Scene, stand: Stand) -> None:
    if "redis" in stand.proxies:
        url = scene.redis_url or scene.stack.redis_url
        parts = urlsplit(url)
        proxy = _before(scene, "redis", url)
        login = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
        scene.redis_url = parts._replace(netloc=f"{login}127.0.0.1:{proxy.port}").geturl()
    if "embedding" in stand.proxies:
        proxy = _before(scene, "embedding", scene.stack.embedding_url)
        path = urlsplit(scene.stack.embedding_url).path
        scene.settings["RAG_EMBEDDING_URL"] = f"http://127.0.0.1:{proxy.port}{path}"


def _before(scene: Scene, part: str, url: str) -> FaultProxy:
    """A proxy in front of the server of this URL, ended with the scene."""
    parts = urlsplit(url)
    if parts.hostname is None or parts.port is None:
        raise HarnessFailure(
            f"fault scenario {scene.name}: expected a host and port for the proxy, got: {parts.scheme}"
        )
    start = import_module(
        PROXY_MODULE
    ).start_proxy  # only where a scenario has a proxy: it is a component of its own
    proxy = cast("FaultProxy", start((parts.hostname, parts.port), seed=scene.rng.getrandbits(31)))
    scene.cleanup.callback(proxy.close)
    scene.proxies[part] = proxy
    return proxy
