"""Redis in a container: the server of `redis`, with Docker's SIGKILL, start, pause and port instead of the kernel's."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import redis

from readiness.errors import BadInput
from readiness.judge.model import Text
from readiness.stack.binaries import at_least
from readiness.stack.container import Container, Recipe
from readiness.stack.docker import Image, short
from readiness.stack.processes import Child, StackError
from readiness.stack.redis import OLDEST, RedisServer

INNER_PORT = 6379


class ContainedRedis(RedisServer):
    """`kill` is `docker kill`, `start` after it `docker start` on the same data, which is a folder of the run."""

    def __init__(self, run_dir: Path, *, name: str, image: Image) -> None:
        super().__init__(run_dir, name=name, provider="docker", program=None, version="")
        self.image = image
        self._container: Container | None = None

    @property
    def note(self) -> Text:
        """The image, as the report shows it."""
        name, digest = self.image.name, short(self.image.digest)
        return Text(
            en=f"a container of {name} ({digest}) on a port of loopback, data in the run's folder",
            ko=f"{name}({digest}) 컨테이너이며 루프백 포트를 쓰고 데이터는 실행 폴더에 있습니다.",
        )

    @property
    def peer(self) -> tuple[str, int]:
        """Where another Redis in a container reaches this one."""
        assert self._container is not None
        return self._container.address, INNER_PORT

    def start(self) -> None:
        """As `RedisServer.start`; one that did not come up leaves no container."""
        try:
            super().start()
            self.version = self.version or self._asked_version()
        except BaseException:
            self.stop()
            raise

    def _launch(self, port: int) -> Child:
        if self.prefix:
            raise StackError(
                f"{self._name}: expected a Redis of this machine for {self.prefix[0]}, got one in a container"
            )
        folders = tuple(dict.fromkeys((self._data, self.data_dir)))
        settings = {
            **self._settings(INNER_PORT),
            "bind": "*",
            "protected-mode": "no",
            "port": str(INNER_PORT),
        }
        recipe = Recipe(
            image=self.image.name,
            entrypoint="redis-server",  # the image's own would give the data to another user
            command=tuple(word for name, value in settings.items() for word in (f"--{name}", value)),
            port=port,
            inner_port=INNER_PORT,
            folders=folders,
            environment=self.environment,
        )
        if self._container is None:
            self._container = Container(self._run_dir, self._name)
        self._process = self._container
        self._container.start(recipe)
        return self._container

    def _asked_version(self) -> str:
        with redis.Redis.from_url(self.url) as client:
            info = cast("dict[str, object]", client.info("server"))
        version = str(info.get("valkey_version") or info.get("redis_version", ""))
        if not at_least(version, OLDEST):
            wanted = ".".join(map(str, OLDEST))
            raise BadInput(
                f"--redis docker: expected Redis {wanted} or newer in {self.image.name}, got: {version}"
            )
        return version
