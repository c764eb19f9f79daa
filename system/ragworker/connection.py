"""Open a Redis client for a URL: one server, TLS, a socket, or whoever the Sentinels say is the master (spec I3).

    redis://[user:password@]host[:port][/db]      rediss://...  over TLS      unix://[user:password@]/path?db=0
    sentinel://[user:password@]host[:port][,host[:port]...]/service[/db]      sentinels://...  over TLS

User and password of a sentinel URL are the master's; `?sentinel_password=` is the Sentinels' own. A client asks the
Sentinels anew for each connection, so after a failover it finds the new master by itself.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import hiredis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

SCHEMES: Final = ("redis", "rediss", "unix", "sentinel", "sentinels")

#: A healthy Redis answers in under a millisecond; after this it counts as away.
ANSWER_SECONDS: Final = 5.0
CONNECT_SECONDS: Final = 2.0

SENTINEL_PORT: Final = 26_379


def connect(url: str) -> redis.asyncio.Redis:
    """A client with deadlines. ValueError when the URL names no Sentinel or no service."""
    # One second try at once: a restarted Redis leaves dead connections.
    options: dict[str, Any] = {
        "socket_timeout": ANSWER_SECONDS,
        "socket_connect_timeout": CONNECT_SECONDS,
        "retry": Retry(NoBackoff(), 1),
    }
    sentinels = urlsplit(url).scheme in ("sentinel", "sentinels")
    client = _of_sentinels(url, options) if sentinels else redis.asyncio.Redis.from_url(url, **options)
    pool: Any = client.connection_pool
    pool.connection_class = type("PackingConnection", (_Packing, pool.connection_class), {})
    return client


class _Packing:
    """Commands packed by hiredis: redis-py does so for its synchronous connections only."""

    def pack_command(self, *args: Any) -> list[bytes]:
        name = args[0].encode() if isinstance(args[0], str) else bytes(args[0])
        return [hiredis.pack_command((*name.split(), *args[1:]))]


def _of_sentinels(url: str, options: dict[str, Any]) -> redis.asyncio.Redis:
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    service, _, db = parts.path.strip("/").partition("/")
    sentinels = [_address(host) for host in hosts.split(",") if host]
    if not sentinels or not service:
        raise ValueError("expected sentinel://host[:port][,host[:port]...]/service[/db]")
    user, _, password = credentials.partition(":")
    tls = {"ssl": True} if parts.scheme == "sentinels" else {}
    own = parse_qs(parts.query).get("sentinel_password", [None])[0]
    sentinel: Any = Sentinel(sentinels, sentinel_kwargs={**options, **tls, "password": own})  # type: ignore[no-untyped-call]  # redis-py does not annotate it
    login = {"username": unquote(user) or None, "password": unquote(password) or None, "db": int(db or 0)}
    client: redis.asyncio.Redis = sentinel.master_for(service, **login, **options, **tls)
    return client


def _address(host: str) -> tuple[str, int]:
    name, _, port = host.rpartition(":") if ":" in host.rpartition("]")[2] else (host, "", "")
    return name.strip("[]"), int(port or SENTINEL_PORT)
