"""What a profile asks less of than the one it came from: pure comparison of two profiles, in words.

A target that was moved until it was met is no proof. So each run says which thresholds are looser than on its base
branch: limits, samples, percentiles, weights, gates, claims, checks, parts that need no longer be real, exclusions,
and the knobs that make a run smaller. What became stricter is nobody's worry and not listed. Finding the base is
baseline.py's.
"""

from __future__ import annotations

from collections.abc import Iterator

from readiness.judge.figures import plain
from readiness.judge.model import Loosened, Text
from readiness.judge.profile_model import Claim, Estimator, EstimatorKind, Knobs, Profile
from readiness.judge.targets import target_text

# A larger limit of these asks for more, of all others for less.
MINIMA = (EstimatorKind.MTBF, EstimatorKind.AVAILABILITY)
SIZES: tuple[tuple[str, Text], ...] = (
    ("kills", Text("kills", "강제 종료 횟수")),
    ("load_seconds", Text("seconds of load", "부하 시간(초)")),
    ("load_users", Text("users of the load", "부하 사용자 수")),
    ("sse_streams", Text("event streams", "SSE 스트림 수")),
    ("documents_min", Text("documents at least", "최소 문서 수")),
)


def loosened(before: Profile, now: Profile) -> tuple[Loosened, ...]:
    """Return what `now` asks less of than `before`, in the order of the profile."""
    return tuple(
        Loosened(subject, what)
        for part in (_claims(before, now), _gates(before, now), _sections(before, now), _rest(before, now))
        for subject, what in part
    )


def _claims(before: Profile, now: Profile) -> Iterator[tuple[str, Text]]:
    there = {claim.id: claim for claim in now.claims}
    for old in before.claims:
        if old.id not in there:
            elsewhere = old.id in now.elsewhere
            yield old.id, LEFT_OUT if elsewhere else REMOVED
            continue
        new = there[old.id]
        yield from ((old.id, what) for what in _claim(old, new))


def _claim(old: Claim, new: Claim) -> Iterator[Text]:
    if _is_looser(old.estimator, new.estimator):
        yield _was("target", "목표", _target(new.estimator), _target(old.estimator))
    if new.weight < old.weight:
        yield _was("weight", "가중치", _same(str(new.weight)), _same(str(old.weight)))
    if new.section != old.section:
        yield _was("section", "영역", _same(new.section), _same(old.section))
    if gone := [check for check in old.checks if check not in new.checks]:
        names = ", ".join(gone)
        yield Text(f"rests no longer on {names}", f"근거에서 제외된 검사: {names}")
    if gone := [part for part in old.needs if part not in new.needs]:
        names = ", ".join(gone)
        yield Text(f"no longer needs a real {names}", f"실제 구성 요소가 더 이상 필요하지 않음: {names}")


def _is_looser(old: Estimator, new: Estimator) -> bool:
    if (old.kind, old.unit, old.noun) != (new.kind, new.unit, new.noun):
        return True  # measured in another way: whether that is less, a person has to say
    limit = new.limit < old.limit if old.kind in MINIMA else new.limit > old.limit
    fewer = new.minimum_n < old.minimum_n
    quantile = (new.quantile or 0.0) < (old.quantile or 0.0)
    # As many in a smaller window is more.
    window = (new.window or 0) < (old.window or 0)
    return limit or fewer or quantile or window


def _gates(before: Profile, now: Profile) -> Iterator[tuple[str, Text]]:
    there = {gate.id: gate for gate in now.gates}
    for old in before.gates:
        if old.id not in there:
            yield old.id, Text("gate removed", "필수 조건 삭제")
            continue
        if gone := [claim for claim in old.claims if claim not in there[old.id].claims]:
            names = ", ".join(gone)
            yield old.id, Text(f"gate no longer holds {names}", f"필수 조건에서 제외된 항목: {names}")


def _sections(before: Profile, now: Profile) -> Iterator[tuple[str, Text]]:
    weights = {section.id: section.weight for section in now.sections}
    for old in before.sections:
        if old.id not in weights:
            yield old.id, Text("section removed", "영역 삭제")
        elif weights[old.id] < old.weight:
            yield old.id, _was("weight", "가중치", _same(str(weights[old.id])), _same(str(old.weight)))


def _rest(before: Profile, now: Profile) -> Iterator[tuple[str, Text]]:
    until = {exclusion.claim: exclusion.until for exclusion in before.exclusions}
    for exclusion in now.exclusions:
        if exclusion.until > until.get(exclusion.claim, ""):
            last = exclusion.until
            yield exclusion.claim, Text(f"not applicable until {last}", f"{last}까지 해당 없음으로 지정")
    if now.evidence_days > before.evidence_days:
        days = _same(str(now.evidence_days)), _same(str(before.evidence_days))
        yield "evidence_days", _was("days that evidence counts", "증거 유효 기간(일)", *days)
    for knob, name in SIZES:
        new, old = _size(now.knobs, knob), _size(before.knobs, knob)
        if new < old:
            yield knob, _was(name.en, name.ko, _same(plain(new)), _same(plain(old)))


def _size(knobs: Knobs, name: str) -> float:
    return float(getattr(knobs, name))


def _target(estimator: Estimator) -> Text:
    """The target's words, with what is counted: two targets that differ must read differently."""
    words, noun = target_text(estimator), estimator.noun
    return Text(f"{words.en} ({noun.en})", f"{words.ko} ({noun.ko})")


def _was(what_en: str, what_ko: str, new: Text, old: Text) -> Text:
    return Text(f"{what_en} {new.en}, was {old.en}", f"{what_ko} {new.ko} (이전: {old.ko})")


def _same(words: str) -> Text:
    return Text(words, words)


REMOVED = Text("claim removed", "항목 삭제")
LEFT_OUT = Text("claim no longer in this profile", "이 프로파일에서 제외된 항목")
