"""How USE_DURABLE_WORKER is read: any spelling that a person may write, and once a request."""

from __future__ import annotations

import json
import socket
import time
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis import strategies as st

from readiness.checking.ends import ends_of, state_of
from readiness.checking.recorder import ClaimEvidence
from readiness.targets.base import Lane
from readiness.targets.ragworker_keys import fresh_api

# Spec A1: true is one of four words in any case; false is everything else, so that a typing mistake starts nothing.
YES = ("true", "1", "yes", "on")
NO = ("false", "0", "no", "off")
TEXTS = 30
CHANGES = 6  # of the flag, each in the middle of a request
ANSWER_SECONDS = 10.0
FINISH_SECONDS = 20.0
CONTINUE = b"HTTP/1.1 100"


@st.composite
def spelled(draw: st.DrawFn) -> str:
    """A word that means something, in any case, with blanks around it."""
    word = draw(st.sampled_from(YES + NO))
    cased = "".join(draw(st.sampled_from((letter.upper(), letter.lower()))) for letter in word)
    blank = st.text(alphabet=" \t", max_size=2)
    return draw(blank) + cased + draw(blank)


# One line of a file, and no quotes or blanks at its ends: those belong to the file's form, not to the value.
_LETTERS = st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_characters="\x7f\x85\xa0\xad'\"")
garbage = st.text(alphabet=_LETTERS, max_size=12) | st.sampled_from(YES).map(lambda word: word + word)


@pytest.mark.claim("A1.flag")
def test_any_spelling_is_read_as_a_person_means_it(
    retry_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """Of random spellings exactly the four words for yes, in any case, with blanks around, select the durable path."""
    lane = retry_lane
    wrong: dict[str, str] = {}
    seen: list[str] = []

    @hypothesis_seed(seed)
    @settings(
        max_examples=TEXTS,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(text=spelled() | garbage)
    def read(text: str) -> None:
        seen.append(text)
        lane.set_flag(text)
        expected = "durable" if text.strip().lower() in YES else "background"
        answer = lane.http().get("/readyz")
        mode = answer.json().get("mode")
        if (answer.status_code, mode) != (200, expected):
            wrong[text] = f"USE_DURABLE_WORKER={text!r}: expected {expected}, got {answer.status_code} {mode}"

    try:
        read()
    finally:
        lane.set_flag("true")
    examples = [wrong[text] for text in sorted(wrong, key=len)]
    evidence.cases(len(seen), sum(text in wrong for text in seen), examples, "random spellings of the flag")
    evidence.facts(texts=len(seen), durable=sum(text.strip().lower() in YES for text in seen))
    assert not wrong, examples[0]


@pytest.mark.claim("A1.flag")
def test_the_durable_path_is_off_by_default(retry_lane: Lane, evidence: ClaimEvidence) -> None:
    """An API to which nobody said anything about the flag works in the background, and says so."""
    ready, answer = fresh_api(retry_lane, without=("USE_DURABLE_WORKER", "RAG_ENV_FILE"))
    told = dict(ready.get("settings") or {}).get("USE_DURABLE_WORKER")
    cases = {"mode": ("background", answer.get("mode")), "the setting that it tells": ("false", told)}
    wrong = [
        f"without USE_DURABLE_WORKER: {what}: expected {want!r}, got {have!r}"
        for what, (want, have) in cases.items()
        if want != have
    ]
    evidence.cases(len(cases), len(wrong), wrong, "what an API does that was told nothing")
    assert not wrong, wrong[0]


@pytest.mark.claim("A3.isolation")
def test_a_request_keeps_the_value_that_it_began_with(
    retry_lane: Lane, evidence: ClaimEvidence, seed: int
) -> None:
    """While one request is still sending its body the flag changes: it keeps its value, the next one has the new."""
    lane = retry_lane
    lane.script_embedding([])
    wrong: list[str] = []
    jobs: dict[str, str] = {}
    try:
        for number in range(CHANGES):
            old, new = ("durable", "background") if number % 2 == 0 else ("background", "durable")
            lane.set_flag(str(old == "durable").lower())
            with Submitting(lane, f"isolation {seed} {number}") as slow:
                lane.set_flag(str(new == "durable").lower())
                between = lane.http().get("/readyz").json().get("mode")
                status, body = slow.finished()
            got = (status, body.get("mode"))
            if got != (202, old):
                wrong.append(f"a request begun under {old}: expected 202 {old}, got {got[0]} {got[1]}")
            if between != new:
                wrong.append(f"a request begun after the change: expected {new}, got {between}")
            if body.get("job_id"):
                jobs[str(body["job_id"])] = old
    finally:
        lane.set_flag("true")
    statuses = ends_of(lane, list(jobs), seconds=FINISH_SECONDS)
    effects = [effect.job_id for effect in lane.effects()]
    wrong += [
        f"{job}: expected done by {mode} with one effect, got {state_of(statuses[job])} with {effects.count(job)}"
        for job, mode in jobs.items()
        if state_of(statuses[job]) != "done" or effects.count(job) != 1
    ]
    n = 3 * CHANGES
    evidence.cases(n, min(len(wrong), n), wrong, "requests around a change of the flag, and their jobs")
    assert not wrong, wrong[0]


class Submitting:
    """A submission that has begun and waits with its body until the API says that it listens."""

    def __init__(self, lane: Lane, text: str) -> None:
        address = urlsplit(lane.api_url)
        self._body = json.dumps({"text": text, "name": "slow.txt"}).encode()
        self._socket = socket.create_connection((address.hostname, address.port), timeout=ANSWER_SECONDS)
        head = (
            f"POST /rag/jobs HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(self._body)}\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n"
        )
        self._socket.sendall(head.encode())

    def __enter__(self) -> Submitting:
        """Return when the request is inside: its flag has been read, its body not."""
        heard = self._read(until=CONTINUE)
        assert heard.startswith(CONTINUE), f"expected 100 Continue, got {heard[:80]!r}"
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def finished(self) -> tuple[int, dict[str, object]]:
        """Send the body; status and JSON of the answer."""
        self._socket.sendall(self._body)
        head, _, body = self._read().partition(b"\r\n\r\n")
        if head.startswith(CONTINUE):
            head, _, body = body.partition(b"\r\n\r\n")
        value = json.loads(body)
        return int(head.split()[1]), value if isinstance(value, dict) else {}

    def _read(self, *, until: bytes = b"") -> bytes:
        heard = b""
        deadline = time.monotonic() + ANSWER_SECONDS
        while time.monotonic() < deadline and (piece := self._socket.recv(65_536)):
            heard += piece
            if until and until in heard and b"\r\n\r\n" in heard:
                break
        return heard
