"""RS256 through a JWKS: keys rotate, the place that lists them dies, and nobody gets in by confusing algorithms."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from api_process import SECRET, RedisServer, running_api, wait_until
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from test_auth import claims, raw_token, user_of

from ragworker.api import auth as module
from ragworker.api.auth import Authenticator, AuthError, KeySet
from ragworker.api.problems import UnavailableError


@cache
def private_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65_537, key_size=bits)


def listed(name: str, *, bits: int = 2048, **members: Any) -> dict[str, Any]:
    """The public half of a key as a JWKS lists it; a member set to None is left out."""
    key = RSAAlgorithm.to_jwk(private_key(name, bits).public_key(), as_dict=True)
    found = {**key, "kid": name, "use": "sig", "alg": "RS256", **members}
    return {name: value for name, value in found.items() if value is not None}


def signed(
    name: str, *, kid: str | None = "", bits: int = 2048, algorithm: str = "RS256", **changes: Any
) -> str:
    headers = {} if kid is None else {"kid": kid or name}
    return jwt.encode(claims(**changes), private_key(name, bits), algorithm=algorithm, headers=headers)


def public_pem(name: str) -> bytes:
    return private_key(name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class KeyServer:
    """Answers with what the test says, and counts how often it was asked."""

    def __init__(self) -> None:
        self.body = b"{}"
        self.status = 200
        self.delay = 0.0
        self.drip = 0.0
        self.asked = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                time.sleep(outer.delay)
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(outer.body)))
                self.end_headers()
                with suppress(OSError):
                    for byte in outer.body if outer.drip else ():
                        self.wfile.write(bytes([byte]))
                        time.sleep(outer.drip)
                    self.wfile.write(outer.body if not outer.drip else b"")

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/keys"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def lists(self, *keys: dict[str, Any]) -> None:
        self.body = json.dumps({"keys": keys}).encode()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[KeyServer]:
    it = KeyServer()
    yield it
    it.stop()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets the time that the key set sees pass."""
    now = [1000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def guard_of(source: str, *, secret: str = "") -> Authenticator:
    return Authenticator(secret=secret, keys=KeySet(source), audience="rag", issuer="tests")


def test_rotation_lets_new_keys_in_and_removed_ones_out(
    server: KeyServer, clock: Callable[[float], None]
) -> None:
    """An unknown kid fetches the set anew; old keys stay valid while it lists them, and no longer."""

    async def story() -> None:
        guard = guard_of(server.url)

        async def user(name: str) -> str:
            return await guard.user_of([f"Bearer {signed(name)}"])

        server.lists(listed("one"))
        assert await user("one") == "alice"
        server.lists(listed("one"), listed("two"))
        clock(module.REFETCH_SECONDS + 1)
        assert await user("two") == "alice"
        assert await user("one") == "alice"
        assert server.asked == 2
        server.lists(listed("two"))
        clock(module.MAX_AGE_SECONDS + 1)
        await user("two")  # an old set is read again beside the request that found it old
        await asyncio.wait_for(guard.keys._reading, 5)  # type: ignore[union-attr,arg-type]  # no other way to see it end
        with pytest.raises(AuthError, match="kid"):
            await user("one")
        assert await user("two") == "alice"

    asyncio.run(story())


def test_unknown_kids_do_not_hammer_the_server(server: KeyServer, clock: Callable[[float], None]) -> None:
    """A hundred tokens with made-up kids cost one fetch per REFETCH_SECONDS, and are refused."""
    server.lists(listed("one"))

    async def story() -> None:
        guard = guard_of(server.url)
        for expected in (1, 2):
            tokens = [signed("other", kid=f"made-up-{number}") for number in range(100)]
            refused = await asyncio.gather(
                *(guard.user_of([f"Bearer {token}"]) for token in tokens), return_exceptions=True
            )
            assert all(isinstance(answer, AuthError) for answer in refused)
            clock(module.REFETCH_SECONDS - 1)
            with pytest.raises(AuthError):
                await guard.user_of([f"Bearer {tokens[0]}"])
            assert server.asked == expected
            clock(2)

    asyncio.run(story())


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b""),
        (200, b"not json"),
        (200, b"[]"),
        (200, b'{"keys": []}'),
        (200, b'{"keys": [7, {"kty": "oct", "k": "c2VjcmV0"}]}'),
        (200, b"oversized"),
    ],
)
def test_unreadable_set_keeps_the_last_one_and_says_so(
    server: KeyServer,
    clock: Callable[[float], None],
    caplog: pytest.LogCaptureFixture,
    status: int,
    body: bytes,
) -> None:
    """A server that fails, lies or sends too much takes no key away; the log has one warning per attempt."""

    async def story() -> None:
        guard = guard_of(server.url)
        server.lists(listed("one"))
        assert await guard.user_of([f"Bearer {signed('one')}"]) == "alice"
        server.status, server.body = status, body
        if body == b"oversized":
            server.body = json.dumps({"keys": [listed("two")], "": "x" * module.MAX_KEY_SET_BYTES}).encode()
        clock(module.MAX_AGE_SECONDS + 1)
        with pytest.raises(AuthError):
            await guard.user_of([f"Bearer {signed('two')}"])
        assert await guard.user_of([f"Bearer {signed('one')}"]) == "alice"

    asyncio.run(story())
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "auth.keys_unreadable"
    ]


def test_dead_server_and_no_set_yet_is_not_the_callers_fault(server: KeyServer) -> None:
    """Without any keys nobody can be known: that is another error than a bad token, and no fetch waits for ever."""
    server.stop()
    with pytest.raises(UnavailableError):
        user_of(guard_of(server.url), f"Bearer {signed('one')}")
    with pytest.raises(UnavailableError):
        user_of(guard_of("/no/such/file"), f"Bearer {signed('one')}")


@pytest.mark.parametrize(("delay", "drip"), [(20.0, 0.0), (0.0, 0.5)])
def test_slow_server_holds_nobody_up_but_those_who_need_a_new_key(
    server: KeyServer,
    clock: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
    delay: float,
    drip: float,
) -> None:
    """While a fetch hangs or drips, known keys are answered at once; the fetch is given up after its bound."""
    monkeypatch.setattr(module, "FETCH_SECONDS", 2.0)

    async def story() -> None:
        guard = guard_of(server.url)
        server.lists(listed("one"))
        await guard.user_of([f"Bearer {signed('one')}"])
        server.delay, server.drip = delay, drip
        clock(module.MAX_AGE_SECONDS + 1)
        loop = asyncio.get_running_loop()
        unknown = asyncio.create_task(guard.user_of([f"Bearer {signed('two')}"]))
        await asyncio.sleep(0)
        started = loop.time()
        assert await guard.user_of([f"Bearer {signed('one')}"]) == "alice"
        assert loop.time() - started < 1.5
        with pytest.raises(AuthError):
            await asyncio.wait_for(unknown, 8)

    asyncio.run(story())


def test_set_may_be_a_file(tmp_path: Path) -> None:
    """A path and a file URL work alike; a token without kid takes the only key, not one of several."""
    path = tmp_path / "key set.json"
    path.write_text(json.dumps({"keys": [listed("one")]}), "utf-8")
    for source in (str(path), path.as_uri()):
        assert user_of(guard_of(source), f"Bearer {signed('one')}") == "alice"
        assert user_of(guard_of(source), f"Bearer {signed('one', kid=None)}") == "alice"
    path.write_text(json.dumps({"keys": [listed("one"), listed("two")]}), "utf-8")
    with pytest.raises(AuthError):
        user_of(guard_of(str(path)), f"Bearer {signed('one', kid=None)}")


def _own_key_in_header() -> str:
    headers = {
        "kid": "mallory",
        "jwk": listed("mallory"),
        "jku": "http://127.0.0.1:9/",
        "x5u": "http://127.0.0.1:9/",
    }
    return jwt.encode(claims(), private_key("mallory"), algorithm="RS256", headers=headers)


FORGED: dict[str, Callable[[], str]] = {
    "HS256 with the public key as secret": lambda: raw_token(
        {"alg": "HS256", "kid": "one"}, claims(), key=public_pem("one").decode()
    ),
    "HS256 with the JWK as secret": lambda: raw_token(
        {"alg": "HS256", "kid": "one"}, claims(), key=json.dumps(listed("one"))
    ),
    "unsigned (alg none)": lambda: jwt.encode(claims(), "", algorithm="none", headers={"kid": "one"}),
    "another key under a listed kid": lambda: signed("mallory", kid="one"),
    "key that the token brings itself": _own_key_in_header,
    "RS512 with the right key": lambda: signed("one", algorithm="RS512"),
    "PS256 with the right key": lambda: signed("one", algorithm="PS256"),
    "RS256 over a key for encryption": lambda: signed("encryption"),
    "RS256 over a key for RS512": lambda: signed("for RS512"),
    "RS256 over 1024 bits": lambda: signed("short", bits=1024),
    "kid that is no text": lambda: raw_token({"alg": "RS256", "kid": 7}, claims()),
    "header that must be understood": lambda: raw_token(
        {"alg": "RS256", "kid": "one", "crit": ["exp"]}, claims()
    ),
    "expired": lambda: signed("one", exp=int(time.time()) - 1),
    "issued in the future": lambda: signed("one", iat=int(time.time()) + 60),
    "not valid yet": lambda: signed("one", nbf=int(time.time()) + 60),
    "another audience": lambda: signed("one", aud="billing"),
    "another issuer": lambda: signed("one", iss="elsewhere"),
    "oversized": lambda: signed("one", filler="x" * 9000),
}


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
@pytest.mark.parametrize("name", FORGED)
def test_forged_token_is_refused(name: str, tmp_path: Path) -> None:
    """Beside a shared secret or alone, a key set lets nobody in but who signed with one of its RSA keys."""
    keys = [
        listed("one"),
        listed("encryption", use="enc"),
        listed("for RS512", alg="RS512"),
        listed("short", bits=1024),
        ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key(), as_dict=True)
        | {"kid": "curve"},
    ]
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": keys}), "utf-8")
    token = FORGED[name]()
    for secret in ("", SECRET):
        with pytest.raises(AuthError) as refusal:
            user_of(guard_of(str(path), secret=secret), f"Bearer {token}")
        assert token not in refusal.value.detail


def test_secret_and_key_set_stand_side_by_side(tmp_path: Path) -> None:
    """With both, HS256 is checked with the secret and RS256 with the set; with one, the other is refused."""
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [listed("one", alg=None, use=None)]}), "utf-8")
    shared = jwt.encode(claims(), SECRET, algorithm="HS256")
    both = guard_of(str(path), secret=SECRET)
    assert user_of(both, f"Bearer {shared}") == user_of(both, f"Bearer {signed('one')}") == "alice"
    with pytest.raises(AuthError):
        user_of(guard_of(str(path)), f"Bearer {shared}")
    with pytest.raises(AuthError):
        user_of(Authenticator(secret=SECRET, audience="rag", issuer="tests"), f"Bearer {signed('one')}")


def test_api_follows_a_rotation_and_outlives_its_key_server(
    redis_server: RedisServer, server: KeyServer, tmp_path: Path
) -> None:
    """Over HTTP: 503 while no set was ever read, then in by one key, by the next, and still with the server gone."""
    server.status = 500
    environ = {"RAG_JWT_JWKS_URL": server.url, "RAG_JWT_AUDIENCE": "rag", "RAG_JWT_ISSUER": "tests"}
    with running_api(tmp_path, redis_url=redis_server.url, **environ) as api:

        def status(name: str) -> int:
            headers = {"Authorization": f"Bearer {signed(name)}"}
            return api.client.get("/rag/dlq", headers=headers).status_code

        away = api.client.get("/rag/dlq", headers={"Authorization": f"Bearer {signed('one')}"})
        assert (away.status_code, away.json()["type"]) == (503, "urn:ragworker:problem:unavailable")
        assert int(away.headers["retry-after"]) > 0
        server.status = 200
        server.lists(listed("one"))
        wait_until(lambda: status("one") == 200, seconds=10, what="the first key is accepted")
        server.lists(listed("one"), listed("two"))
        wait_until(lambda: status("two") == 200, seconds=10, what="the second key is accepted")
        server.stop()
        assert (status("one"), status("two"), status("three")) == (200, 200, 401)
        assert api.lines(message="auth.keys_changed")[-1]["kids"] == ["one", "two"]
        assert api.lines(message="auth.keys_unreadable", level="WARNING")
        assert "eyJ" not in api.log.read_text("utf-8")
