"""Why a claim is not PROVEN, in words: one sentence a reason code, in both languages.

A reason is made by the judge as a code with parameters: machines read the code, people the sentence.
Parameters that differ by language come in pairs (`n_en`, `n_ko`).
"""

from __future__ import annotations

from readiness.judge.model import Reason, Text

REASONS: dict[str, Text] = {
    "no_evidence": Text(
        "No evidence was recorded for this claim.",
        "이 항목에 대해 기록된 증거가 없습니다.",
    ),
    "left_out": Text(
        "This partial run was for other claims (--only).",
        "일부 항목만 실행(--only)하여 이 항목은 제외되었습니다.",
    ),
    "no_outcome": Text(
        "Measurements were recorded, but no check of this claim ran to its end.",
        "측정값은 기록되었으나 이 항목의 검사가 끝까지 수행되지 않았습니다.",
    ),
    "check_absent": Text(
        "Of the checks that this claim names, {checks} left no outcome.",
        "이 항목에 지정된 검사 중 {checks}의 결과가 기록되지 않았습니다.",
    ),
    "no_data": Text(
        "The checks ran but recorded no {what_en}, so there is nothing to judge.",
        "검사는 수행되었으나 {what_ko} 기록이 없어 판정할 수 없습니다.",
    ),
    "part_missing": Text(
        "This needs {title}, which was not there in this run.",
        "이 항목에 필요한 {title} 구성 요소가 이번 실행에 없었습니다.",
    ),
    "part_simulated": Text(
        "This needs a real {title}; in this run {provider} stood in for it.",
        "이 항목은 실제 {title} 환경이 필요하지만 이번 실행은 {provider} 대체 환경에서 수행되었습니다.",
    ),
    "check_failed": Text(
        "{count} of {total} checks failed:",
        "검사 {total}건 중 {count}건이 실패했습니다:",
    ),
    "check_not_run": Text(
        "{count} of {total} checks did not run:",
        "검사 {total}건 중 {count}건이 수행되지 않았습니다:",
    ),
    "check_error": Text(
        "{count} of {total} checks broke before they could judge:",
        "검사 {total}건 중 {count}건이 판정 전에 오류로 중단되었습니다:",
    ),
    "violations": Text(
        "{failures} of {n_en} violated it; the target allows none.",
        "{n_ko} 중 {failures}건에서 위반이 확인되었습니다. 목표는 위반을 허용하지 않습니다.",
    ),
    "cases_failed": Text(
        "{failures} of {n} cases failed.",
        "사례 {n}건 중 {failures}건이 충족되지 않았습니다.",
    ),
    "bound_violates": Text(
        "Even the favourable 95 % bound, {bound}, misses the target.",
        "유리한 쪽 95 % 신뢰한계({bound})로도 목표를 충족하지 못합니다.",
    ),
    "bound_straddles": Text(
        "The 95 % bound, {bound}, does not meet the target, and the data do not refute it either.",
        "95 % 신뢰한계({bound})가 목표를 충족하지 못하며, 목표를 벗어났다고 단정할 수도 없습니다.",
    ),
    "too_few": Text(
        "Only {n_en} were observed; at least {need} are needed.",
        "{n_ko}만 관측되어 최소 {need}건에 미치지 못합니다.",
    ),
    "too_alike": Text(
        "{n_en} were observed, but they resemble their neighbours in time: they are worth {n_eff} independent ones, "
        "and at least {need} are needed.",
        "{n_ko}을 관측했으나 시간상 이웃한 값이 서로 비슷하여 독립 표본 {n_eff}건에 해당합니다. 최소 {need}건이 "
        "필요합니다.",
    ),
    "above_maximum": Text(
        "The worst value, {value}, misses the target.",
        "최악값({value})이 목표를 충족하지 못합니다.",
    ),
    "short_exposure": Text(
        "{time_en} of observation cannot prove this; {need_en} in all would, if it goes on as so far.",
        "{time_ko}의 관측으로는 입증할 수 없습니다. 지금 추세라면 총 {need_ko}의 관측이 필요합니다.",
    ),
    "short_exposure_hopeless": Text(
        "{time_en} of observation do not settle this, and at this rate of failures no time would prove it.",
        "{time_ko}의 관측으로는 판정할 수 없으며, 지금의 장애 빈도로는 입증되지 않습니다.",
    ),
    "chain_broken": Text(
        "The evidence file is damaged ({problem}).",
        "증거 파일이 손상되었습니다({problem}).",
    ),
    "failed_before": Text(
        "It failed in the earlier attempt {run} of this commit; passing now does not undo that.",
        "같은 커밋의 이전 실행 {run}에서 실패했습니다. 이번에 통과했더라도 그 결과는 유효합니다.",
    ),
    "torn_line": Text(
        "A writer was killed inside its last record ({problem}); the records before it prove nothing alone.",
        "기록 도중 프로세스가 종료되었습니다({problem}). 그 앞의 기록만으로는 입증할 수 없습니다.",
    ),
    "bad_data": Text(
        "A record cannot be a measurement: {problem}.",
        "측정값으로 볼 수 없는 기록이 있습니다: {problem}.",
    ),
    "evidence_expired": Text(
        "{count} records are too old to prove anything; the oldest is of {day}. Measure again.",
        "기록 {count}건의 유효 기간이 지났습니다(가장 오래된 기록: {day}). 다시 측정해야 합니다.",
    ),
    "exclusion_expired": Text(
        "{owner} excluded this claim until {until}; that day is over, so it has to be measured again.",
        "{owner} 담당자가 {until}까지 제외한 항목이며, 기한이 지나 다시 측정해야 합니다.",
    ),
    "waived": Text(
        "Excluded until {until} by {owner}: {why_en}",
        "{owner} 담당자가 {until}까지 제외한 항목입니다. 사유: {why_ko}",
    ),
    "harness_clock": Text(
        "A clock of the harness ran backwards {count} times, so none of its times can be trusted.",
        "점검 도구의 시계가 {count}회 역행하여 측정 시각을 신뢰할 수 없습니다.",
    ),
    "harness_arrivals": Text(
        "The generator made {made} of {planned} planned submissions, fewer than {least}: the load was lighter than the "
        "claim says.",
        "부하 생성기가 계획된 제출 {planned}건 중 {made}건만 수행하여({least} 미만), 항목이 말하는 부하보다 "
        "가벼웠습니다.",
    ),
    "harness_cpu": Text(
        "The generator used {share} of a core; from {most} on it waits for itself.",
        "부하 생성기가 코어의 {share}를 사용했습니다. {most}부터는 생성기 자체가 지연됩니다.",
    ),
    "harness_schedule": Text(
        "The generator was {lag} late, where less than {limit} is allowed: it measured its own delay too.",
        "부하 생성기가 {lag} 지연되어 허용치({limit} 미만)를 넘었습니다. 생성기 자체의 지연이 함께 측정되었습니다.",
    ),
    "harness_scrapes": Text(
        "The harness did not look at the metrics for {gap} intervals in a row; at most {most} are allowed.",
        "점검 도구가 {gap}개 수집 주기 동안 메트릭을 읽지 않았습니다. 최대 {most}개 주기까지 허용됩니다.",
    ),
    "harness_counts": Text(
        "The server knows {server} jobs but the client submitted {client}: its record of the load is not whole.",
        "서버에는 작업 {server}건이 있으나 클라이언트가 제출한 작업은 {client}건입니다. 부하 기록이 온전하지 않습니다.",
    ),
    "harness_fault_idle": Text(
        "The fault {fault} was not proven active, so living through it shows nothing.",
        "장애 {fault}의 실제 발생이 입증되지 않아, 이를 견뎠다는 결과는 의미가 없습니다.",
    ),
    "harness_fault_stays": Text(
        "The fault {fault} was not proven removed, so the recovery was measured under it.",
        "장애 {fault}의 제거가 입증되지 않아, 장애가 남은 상태에서 복구가 측정되었을 수 있습니다.",
    ),
    "excluded": Text(
        "The guarantees that the target declares rule this claim out:",
        "대상 시스템이 선언한 보장 범위에서 제외되는 항목입니다:",
    ),
}


def explain(reason: Reason) -> Text:
    """Return the sentence of a reason, with the check's verbatim words after it when there are any."""
    template = REASONS[reason.code]
    tail = f" {reason.detail}" if reason.detail else ""
    return Text(
        (template.en.format_map(reason.params) + tail).removesuffix(":"),
        (template.ko.format_map(reason.params) + tail).removesuffix(":"),
    )
