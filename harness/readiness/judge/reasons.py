"""Why a claim is not PROVEN, in words: one sentence a reason code, in both languages.

A reason is made by the judge as a code with parameters, so that machines read the code and people the
sentence.
"""

from __future__ import annotations

from readiness.judge.model import Reason, Text

REASONS: dict[str, Text] = {
    "no_evidence": Text(
        "No evidence was recorded for this claim.",
        "이 항목에 대해 기록된 증거가 없습니다.",
    ),
    "no_outcome": Text(
        "Measurements were recorded, but no check of this claim ran to its end.",
        "측정값은 기록되었으나, 이 항목의 검사가 끝까지 수행되지 않았습니다.",
    ),
    "no_data": Text(
        "The checks ran, but recorded no {kind}, so there is nothing to judge.",
        "검사는 수행되었으나 {kind} 기록이 없어 판정할 데이터가 없습니다.",
    ),
    "part_missing": Text(
        "This needs {part}, which was not there in this run.",
        "이 항목에는 {part}이(가) 필요하지만 이번 실행에는 없었습니다.",
    ),
    "part_simulated": Text(
        "This needs a real {part}; in this run {provider} stood in for it.",
        "이 항목에는 실제 {part}이(가) 필요하지만 이번 실행에서는 {provider}(으)로 대체되었습니다.",
    ),
    "check_failed": Text(
        "{count} of {total} checks failed.",
        "검사 {total}건 중 {count}건이 실패했습니다.",
    ),
    "check_skipped": Text(
        "{count} of {total} checks did not run.",
        "검사 {total}건 중 {count}건이 수행되지 않았습니다.",
    ),
    "check_error": Text(
        "{count} of {total} checks broke before they could judge.",
        "검사 {total}건 중 {count}건이 판정 전에 오류로 중단되었습니다.",
    ),
    "violations": Text(
        "{failures} of {n} {unit} violated it; the target allows none.",
        "{n} {unit} 중 {failures}건이 위반되었습니다. 목표는 위반을 허용하지 않습니다.",
    ),
    "cases_failed": Text(
        "{failures} of {n} cases failed.",
        "사례 {n}건 중 {failures}건이 실패했습니다.",
    ),
    "bound_violates": Text(
        "Even the favourable 95 % bound, {bound}, misses the target.",
        "유리한 쪽 95 % 신뢰한계({bound})로도 목표를 충족하지 못합니다.",
    ),
    "bound_straddles": Text(
        "The 95 % bound, {bound}, does not meet the target, and the data do not refute it either.",
        "95 % 신뢰한계({bound})가 목표를 충족하지 못하지만, 목표를 벗어났다고 단정할 수도 없습니다.",
    ),
    "too_few": Text(
        "Only {n} of the {required} {unit} that the target needs were observed.",
        "목표 판정에는 {required} {unit}이(가) 필요하지만 {n} {unit}만 관측되었습니다.",
    ),
    "above_maximum": Text(
        "The worst value, {value}, misses the target.",
        "최악값 {value}이(가) 목표를 충족하지 못합니다.",
    ),
    "short_exposure": Text(
        "{hours} h of observation cannot prove this; {required_hours} h would, if it goes on as so far.",
        "관측 시간 {hours}시간으로는 입증할 수 없습니다. 지금 추세라면 {required_hours}시간이 필요합니다.",
    ),
    "chain_broken": Text(
        "The evidence file is damaged: {problem}.",
        "증거 파일이 손상되었습니다: {problem}.",
    ),
    "torn_line": Text(
        "A writer was killed inside its last record ({problem}); the finished records alone do not prove it.",
        "기록 도중 프로세스가 종료되었습니다({problem}). 완료된 기록만으로는 입증할 수 없습니다.",
    ),
    "bad_data": Text(
        "A record cannot be a measurement: {problem}.",
        "측정값으로 볼 수 없는 기록이 있습니다: {problem}.",
    ),
    "excluded": Text(
        "The target's declared guarantees rule this claim out.",
        "대상 시스템이 선언한 보장 범위에 포함되지 않는 항목입니다.",
    ),
}


def explain(reason: Reason) -> Text:
    """Return the sentence of a reason, with the check's verbatim words after it when there are any."""
    template = REASONS[reason.code]
    tail = f" {reason.detail}" if reason.detail else ""
    return Text(template.en.format_map(reason.params) + tail, template.ko.format_map(reason.params) + tail)
