"""Docker as a provider: which image a part takes, and whether daemon and image are there. Starts and pulls nothing.

Only this module and `container` know Docker, and only when a part is asked from it: the package `testcontainers`
(the extra `docker`) is imported then, not before.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec

from readiness.errors import BadInput
from readiness.judge.model import Text
from readiness.stack.base import REDIS_URL_VARIABLE

DEFAULT_IMAGES = {
    "redis": "redis:7",
    "postgres": "postgres:16",
    "prometheus": "prom/prometheus:v2.53.0",
    "alertmanager": "prom/alertmanager:v0.27.0",
}
"""Part -> image. Another one by `--image PART=IMAGE` or in the environment."""

IMAGE_VARIABLES = {part: f"READINESS_{part.upper()}_IMAGE" for part in DEFAULT_IMAGES}

_DOCKER_VARIABLES = (
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "XDG_RUNTIME_DIR",
)

_LOCAL_DAEMON = ("unix://", "http+docker://", "npipe://")


@dataclass(frozen=True, slots=True)
class Image:
    """An image that this machine has. `digest` is the registry's, or the image's own id when it was built here."""

    name: str
    digest: str


def image_of(part: str) -> str:
    """The name of the image that a part is to be started from."""
    return os.environ.get(IMAGE_VARIABLES[part]) or DEFAULT_IMAGES[part]


def choose_images(words: Iterable[str]) -> None:
    """Take `PART=IMAGE` words for this process and the steps that it starts. BadInput for anything else."""
    for word in words:
        part, _, name = word.partition("=")
        if part not in DEFAULT_IMAGES or not name:
            known = ", ".join(f"{one}=IMAGE" for one in DEFAULT_IMAGES)
            raise BadInput(f"--image: expected one of {known}, got: {word!r}")
        os.environ[IMAGE_VARIABLES[part]] = name


def step_environment() -> dict[str, str]:
    """What the steps of a run, which are processes of their own, need of our environment to find its parts."""
    names = (REDIS_URL_VARIABLE, *_DOCKER_VARIABLES, *IMAGE_VARIABLES.values())
    return {name: os.environ[name] for name in names if name in os.environ}


def require_image(part: str, *, flag: str) -> Image:
    """The image of a part. BadInput, one line that starts with `flag`, when Docker or the image is not there."""
    if find_spec("testcontainers") is None:
        raise BadInput(
            f"{flag}: expected the package testcontainers, found none. Install it: pip install 'readiness[docker]'"
        )
    # Imported here: the package is an extra, and takes half a second.
    from readiness.stack import container  # noqa: PLC0415 - see above

    name = image_of(part)
    try:
        daemon = container.daemon_facts()
        digest = container.image_digest(name) if daemon.at.startswith(_LOCAL_DAEMON) else None
    except container.DockerFailure as failure:
        raise BadInput(
            f"{flag}: expected a Docker daemon that answers, got: {failure}. Start it, set DOCKER_HOST to"
            " where it is, or leave the flag out."
        ) from None
    if not daemon.at.startswith(_LOCAL_DAEMON):
        raise BadInput(
            f"{flag}: expected a Docker daemon on this machine (a unix:// socket), got: {daemon.at}."
            " Its ports would not be on our loopback."
        )
    if part in _ON_HOST_NETWORK and (sys.platform != "linux" or "Docker Desktop" in daemon.system):
        raise BadInput(
            f"{flag}: expected a Docker daemon on Linux itself, got: {daemon.system or sys.platform}. {part} in a"
            " virtual machine cannot reach what it watches on our loopback; leave the flag out."
        )
    if digest is None:
        raise BadInput(
            f"{flag}: expected the image {name} on this machine, found none, and nothing is pulled by itself. Get it:"
            f" docker pull {name}, or name another one: --image {part}=IMAGE."
        )
    return Image(name, digest)


def image_note(image: Image) -> Text:
    """What the report says of a server on the host's network that came from an image."""
    name, digest = image.name, short(image.digest)
    return Text(
        en=f"a container of {name} ({digest}) that listens on loopback only, files in the run's folder",
        ko=f"{name}({digest}) 컨테이너이며 루프백에서만 수신하고 파일은 실행 폴더에 있습니다.",
    )


def short(digest: str) -> str:
    """A digest as people compare it: its first twelve hexadecimal digits."""
    algorithm, _, value = digest.rpartition(":")
    return f"{algorithm}:{value[:12]}" if algorithm else value[:12]


_ON_HOST_NETWORK = ("prometheus", "alertmanager")
"""They ask processes on loopback for their metrics and deliver to sinks on loopback."""
