"""Every answer carries valid request, trace and correlation ids: the caller's when valid, new ones when
not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import pytest

from readiness.checking.ingest import Ingested
from readiness.checking.recorder import ClaimEvidence

REQUEST, TRACE = re.compile(r"req-[a-z0-9]{16}"), re.compile(r"trace-[0-9a-f]{32}")
GOOD_REQUEST, GOOD_TRACE, GOOD_CORRELATION = "req-0123456789abcdef", f"trace-{'0a' * 16}", "order-4711"
# Wrong in length, alphabet, prefix or case, and what somebody would try to smuggle into a log line.
BAD_REQUESTS = (
    "", "req-", "req-short", "req-0123456789abcde", "req-0123456789abcdefg", "req-0123456789ABCDEF",
    "REQ-0123456789abcdef", "0123456789abcdef", "req-0123456789abcd-f", "req-0123456789abcdef x",
    "req-{\"a\":\"b\"}xxxxxx", "trace-" + "0a" * 16, "x" * 4000,
)  # fmt: skip
BAD_TRACES = (
    "", "trace-", "trace-" + "0a" * 15, "trace-" + "0a" * 17, "trace-" + "0A" * 16, "trace-" + "0g" * 16,
    "0a" * 16, "00-" + "0a" * 16 + "-" + "0b" * 8 + "-01", "req-0123456789abcdef",
)  # fmt: skip
BAD_CORRELATIONS = ("", "two words", "<script>", "x" * 2000)
# Good answers and errors alike: an id is needed most where something went wrong.
PATHS = (
    ("GET", "/healthz"),
    ("GET", "/rag/jobs/none"),
    ("GET", "/no/such/page"),
    ("POST", "/rag/jobs"),
    ("PUT", "/rag/jobs"),
)
UNIQUE = 50
WELL_KNOWN = "4bf92f3577b34da6a3ce929d0e0e4736"
# https://www.w3.org/TR/trace-context/: whether each is a traceparent whose trace is to be taken.
TRACEPARENTS = {
    f"00-{WELL_KNOWN}-00f067aa0ba902b7-01": True,
    f"00-{WELL_KNOWN}-00f067aa0ba902b7-00": True,
    f"ff-{WELL_KNOWN}-00f067aa0ba902b7-01": False,
    f"00-{WELL_KNOWN}-{'0' * 16}-01": False,
    f"00-{WELL_KNOWN.upper()}-00f067aa0ba902b7-01": False,
    f"00-{WELL_KNOWN}-01": False,
}


@pytest.mark.claim("G1.ids")
def test_ids_are_kept_when_valid_and_made_when_not(ingested: Ingested, evidence: ClaimEvidence) -> None:
    """Valid ids come back unchanged, invalid and missing ones are replaced by valid new ones, on errors
    too.
    """
    client = ingested.lane.http()
    wrong: list[str] = []
    n = 0

    def ask(
        what: str, headers: Mapping[str, str], method: str = "GET", path: str = "/healthz"
    ) -> Mapping[str, str]:
        nonlocal n
        n += 1
        answer = client.request(method, path, headers=dict(headers))
        got = answer.headers
        if not REQUEST.fullmatch(got.get("x-request-id", "")) or not TRACE.fullmatch(
            got.get("x-trace-id", "")
        ):
            wrong.append(
                f"{what}: expected valid ids, got {got.get('x-request-id')!r}, {got.get('x-trace-id')!r}"
            )
        if not got.get("x-correlation-id"):
            wrong.append(f"{what}: expected a correlation id, got none")
        return got

    def expect(what: str, ok: bool) -> None:
        nonlocal n
        n += 1
        if not ok:
            wrong.append(what)

    good = {"X-Request-ID": GOOD_REQUEST, "X-Trace-ID": GOOD_TRACE, "X-Correlation-ID": GOOD_CORRELATION}
    for method, path in PATHS:
        got = ask(f"valid ids, {method} {path}", good, method, path)
        kept = (got.get("x-request-id"), got.get("x-trace-id"), got.get("x-correlation-id"))
        expect(f"valid ids, {method} {path}: expected them kept, got {kept}", kept == tuple(good.values()))
        ask(f"no ids, {method} {path}", {}, method, path)
    bad = [("X-Request-ID", value) for value in BAD_REQUESTS]
    bad += [("X-Trace-ID", value) for value in BAD_TRACES]
    bad += [("X-Correlation-ID", value) for value in BAD_CORRELATIONS]
    for name, value in bad:
        got = ask(f"{name}: {value[:40]!r}", {**good, name: value})
        expect(f"{name}: {value[:40]!r}: expected it replaced, came back", got.get(name.lower()) != value)
        others = [other for other in good if other != name]
        expect(
            f"{name}: {value[:40]!r}: expected the other ids kept",
            all(got.get(one.lower()) == good[one] for one in others),
        )

    # In place of a missing X-Trace-ID a W3C traceparent will do, if it is one.
    for parent, trace in TRACEPARENTS.items():
        got = ask(f"traceparent {parent!r}", {"traceparent": parent})
        taken = got.get("x-trace-id") == f"trace-{WELL_KNOWN}"
        expect(f"traceparent {parent!r}: expected it {'taken' if trace else 'not taken'}", taken is trace)
    got = ask(
        "traceparent beside X-Trace-ID", {"traceparent": next(iter(TRACEPARENTS)), "X-Trace-ID": GOOD_TRACE}
    )
    expect("traceparent beside X-Trace-ID: expected the latter kept", got.get("x-trace-id") == GOOD_TRACE)

    made = [ask(f"no ids, request {number}", {}) for number in range(UNIQUE)]
    for name in ("x-request-id", "x-trace-id"):
        expect(f"{name}: expected {UNIQUE} different ones", len({got.get(name) for got in made}) == UNIQUE)

    # The submit's answer names the same ids in its body, and the job remembers them.
    submission = next(iter(ingested.submissions.values()))
    status = ingested.lane.status(submission.job_id)
    expect(
        "ids in a submit's body equal its headers",
        submission.request_id == submission.headers.get("x-request-id"),
    )
    expect(
        "trace in a submit's body equals its header",
        submission.trace_id == submission.headers.get("x-trace-id"),
    )
    expect(
        "ids in a job's record are those of its submit",
        (status.request_id, status.trace_id) == (submission.request_id, submission.trace_id),
    )

    evidence.cases(n, min(len(wrong), n), wrong, "ids of answers")
    evidence.facts(bad_ids=len(bad), paths=[f"{method} {path}" for method, path in PATHS], unique=UNIQUE)
    assert not wrong, wrong[0]
