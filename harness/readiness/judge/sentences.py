"""The sentences a person would write about a run: the verdict, and the conclusion of the report."""

from __future__ import annotations

from collections.abc import Sequence

from readiness.judge.figures import SECONDS, count
from readiness.judge.model import ClaimResult, GateResult, GateState, Score, Text, Verdict
from readiness.judge.score import BROKEN, FAILED, PROVEN

WORDS = {
    PROVEN: Text("ready", "출시 가능"),
    FAILED: Text("not ready", "출시 불가"),
    BROKEN: Text("invalid", "무효"),
}
OPEN_WORD = Text("not proven", "미확정")
SMALL = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OPEN_VERDICTS = (Verdict.INCONCLUSIVE, Verdict.NOT_RUN, Verdict.INVALID)


def verdict_word(status: int) -> Text:
    """Return "ready", "not ready", "not proven" or "invalid"."""
    return WORDS.get(status, OPEN_WORD)


def verdict_sentence(status: int, claims: Sequence[ClaimResult], gates: Sequence[GateResult]) -> Text:
    """Return "Not ready: 1 of 6 gates failed; 3 of 41 claims are open, 212 more jobs would settle two of them."."""
    word = verdict_word(status)
    proven = sum(1 for claim in claims if claim.verdict == Verdict.PROVEN)
    if status == PROVEN and proven < len(claims):
        left = len(claims) - proven
        return Text(
            f"Ready: {proven} of {_claims(claims)} are proven, {left} not applicable, and all {len(gates)} gates hold.",
            f"출시 가능: 항목 {len(claims)}건 중 {proven}건이 입증되었고 {left}건은 해당 없음이며, "
            f"필수 조건 {len(gates)}건이 모두 충족되었습니다.",
        )
    if status == PROVEN:
        return Text(
            f"Ready: all {_claims(claims)} are proven and all {len(gates)} gates hold.",
            f"출시 가능: 항목 {len(claims)}건이 모두 입증되었고 필수 조건 {len(gates)}건이 모두 충족되었습니다.",
        )
    english = "; ".join(part.en for part in _parts(claims, gates))
    korean = " ".join(part.ko for part in _parts(claims, gates))
    return Text(f"{word.en.capitalize()}: {english}.", f"{word.ko}: {korean}")


def conclusion(status: int, claims: Sequence[ClaimResult], gates: Sequence[GateResult], score: Score) -> Text:
    """Return the report's last paragraph."""
    proven = sum(1 for claim in claims if claim.verdict == Verdict.PROVEN)
    held = sum(1 for gate in gates if gate.state == GateState.HELD)
    failed = [claim.id for claim in claims if claim.verdict == Verdict.FAILED]
    advice = _advice(status, failed)
    return Text(
        f"This run proves {proven} of {_claims(claims)} at 95 % confidence and holds {held} of {len(gates)} gates. "
        f"That earns {score.overall} points ({score.letter}): reliability {score.reliability}, "
        f"observability {score.observability}. {advice.en}",
        f"이번 실행은 항목 {len(claims)}건 중 {proven}건을 신뢰수준 95 %로 입증하였고, 필수 조건 {len(gates)}건 중 "
        f"{held}건을 충족하였습니다. 종합 점수는 {score.overall}점({score.letter})이며 신뢰성 {score.reliability}점, "
        f"관측성 {score.observability}점입니다. {advice.ko}",
    )


def _parts(claims: Sequence[ClaimResult], gates: Sequence[GateResult]) -> list[Text]:
    parts: list[Text] = []
    gates_failed = sum(1 for gate in gates if gate.state == GateState.FAILED)
    failed = sum(1 for claim in claims if claim.verdict == Verdict.FAILED)
    if gates_failed:
        parts.append(
            Text(
                f"{gates_failed} of {len(gates)} gates failed",
                f"필수 조건 {len(gates)}건 중 {gates_failed}건이 충족되지 않았습니다.",
            )
        )
    if failed:
        parts.append(
            Text(
                f"{failed} of {_claims(claims)} failed",
                f"항목 {len(claims)}건 중 {failed}건이 실패하였습니다.",
            )
        )
    else:
        parts.append(Text("no claim failed", "실패한 항목은 없습니다."))
    still_open = [claim for claim in claims if claim.verdict in OPEN_VERDICTS]
    if still_open:
        parts.append(_open_part(still_open, claims))
    return parts


def _open_part(still_open: Sequence[ClaimResult], claims: Sequence[ClaimResult]) -> Text:
    verb = "is" if len(still_open) == 1 else "are"
    english = f"{len(still_open)} of {_claims(claims)} {verb} open"
    korean = f"항목 {len(claims)}건 중 {len(still_open)}건이 미확정입니다."
    cure = _cure(still_open)
    return Text(english + cure.en, korean + cure.ko)


def _cure(still_open: Sequence[ClaimResult]) -> Text:
    """Say how many more of the most asked-for samples would settle how many claims; exposure is not summed up."""
    asked: dict[Text, list[int]] = {}
    for claim in still_open:
        if claim.n_needed and claim.n_unit != SECONDS:
            asked.setdefault(claim.n_unit, []).append(claim.n_needed)
    if not asked:
        return Text("", "")
    noun = max(asked, key=lambda unit: len(asked[unit]))
    # The same samples serve every claim about them, so the largest need settles all.
    needed, settled = max(asked[noun]), len(asked[noun])
    more = count(needed, noun)
    number, _, word = more.en.partition(" ")
    if settled == len(still_open):
        what = Text("it" if settled == 1 else "them", "판정할 수 있습니다")
    else:
        what = Text(f"{_small(settled)} of them", f"그중 {settled}건을 판정할 수 있습니다")
    return Text(f", {number} more {word} would settle {what.en}", f" {more.ko}을 더 관측하면 {what.ko}.")


def _advice(status: int, failed: Sequence[str]) -> Text:
    if status == PROVEN:
        return Text(
            "Within the limits listed above, nothing that was examined speaks against the release.",
            "위에 적은 한계 안에서, 점검한 항목 중 출시를 막을 사유는 확인되지 않았습니다.",
        )
    if status == FAILED:
        names = ", ".join(failed)
        return Text(
            f"Do not release before {names} {'is' if len(failed) == 1 else 'are'} repaired and proven by another run.",
            f"{names} 항목을 수정하고 다시 실행하여 입증하기 전에는 출시하지 않아야 합니다.",
        )
    if status == BROKEN:
        return Text(
            "The harness itself broke or disturbed a measurement: repair that and run again before deciding.",
            "점검 도구 자체의 오류로 측정이 유효하지 않습니다. 원인을 해결한 뒤 다시 실행하여 판단해야 합니다.",
        )
    return Text(
        "Nothing failed, but open claims are no passes: settle them as recommended, or release knowing what is open.",
        "실패한 항목은 없으나 미확정 항목은 통과가 아닙니다. 권장사항에 따라 판정을 마치거나, 미확정 항목을 감안하여 "
        "출시를 결정해야 합니다.",
    )


def _claims(claims: Sequence[ClaimResult]) -> str:
    return f"{len(claims)} claim{'' if len(claims) == 1 else 's'}"


def _small(number: int) -> str:
    return SMALL[number] if number < len(SMALL) else str(number)
