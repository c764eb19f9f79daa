"""The phrases about detection power, attempts and chances: part of the catalogue, apart for its length."""

from __future__ import annotations

from typing import Final

from readiness.judge.model import Text

JUDGE_PHRASES: Final[dict[str, Text]] = {
    # 11 detection power
    "detection.no_rule": Text(
        "This profile names no detection power, so nothing says how many planted defects these checks would notice; "
        "points are not capped.",
        "이 프로파일에는 검출력 규칙이 없어, 이 검사들이 심어 둔 결함을 얼마나 잡아내는지 알 수 없습니다. 점수 상한은 "
        "적용하지 않았습니다.",
    ),
    "detection.no_file": Text(
        "{file} is not there: readiness sabotage has not measured these checks, so proven claims earn a part of their "
        "points only.",
        "{file} 파일이 없습니다. readiness sabotage로 검출력을 측정하지 않아, 입증된 항목도 점수의 일부만 얻습니다.",
    ),
    "detection.sum": Text(
        "{killed} of {judged} planted defects were noticed by the check that had to ({bound} at 95 %); missed: "
        "{missed}, noticed by another check: {wrong}, run crashed: {crashed}.",
        "심어 둔 결함 {judged}건 중 {killed}건을 해당 검사가 발견했습니다({bound}, 신뢰수준 95 %). 놓침 {missed}건, "
        "다른 검사가 발견 {wrong}건, 실행 중단 {crashed}건.",
    ),
    "detection.clean": Text(
        "{alarms} false alarms in {runs} clean runs ({bound} at 95 %).",
        "결함이 없는 실행 {runs}회에서 오경보 {alarms}건({bound}, 신뢰수준 95 %).",
    ),
    "detection.no_clean": Text(
        "No clean run was counted, so the rate of false alarms is not known.",
        "결함이 없는 실행을 집계하지 않아 오경보 비율은 알 수 없습니다.",
    ),
    "detection.measured": Text(
        "Measured by hand at commit {commit}, {when}, with readiness sabotage; not part of this run.",
        "커밋 {commit}에서 {when}에 readiness sabotage로 따로 측정한 값이며, 이번 실행의 일부가 아닙니다.",
    ),
    "detection.not_judged": Text(
        "Not judged, because the claim does not hold on a clean tree either: {count}.",
        "{count}건은 결함이 없는 상태에서도 해당 항목이 성립하지 않아 판정하지 못했습니다.",
    ),
    "detection.rest": Text(
        "Claims without a planted defect: {count}; proven, each earns {share} of its points.",
        "심어 둔 결함이 없는 항목 {count}건은 점수의 {share}만 얻습니다.",
    ),
    "detection.unnoticed": Text("Not noticed as they should be", "의도한 대로 발견되지 않은 결함"),
    "detection.unnoticed.none": Text(
        "Every planted defect was noticed by its check.", "심어 둔 결함을 모두 해당 검사가 발견했습니다."
    ),
    "detection.by_claim": Text("Check by check: {count} claims", "항목별 검출 결과 {count}건"),
    "detection.killed": Text("noticed", "발견"),
    "detection.missed": Text("missed", "놓침"),
    "detection.wrong_check": Text("wrong check", "다른 검사가 발견"),
    "detection.crashed": Text("crashed", "실행 중단"),
    "detection.changed": Text("checks changed since", "이후 검사 변경됨"),
    "detection.terminal": Text(
        "detection: {killed} of {judged} planted defects noticed ({bound})",
        "검출력: 심어 둔 결함 {judged}건 중 {killed}건 발견({bound})",
    ),
    "detection.terminal.none": Text(
        "detection: not measured, proven claims earn a part of their points",
        "검출력: 측정하지 않음, 입증된 항목도 점수의 일부만 인정",
    ),
    "col.detected": Text("Noticed", "발견"),
    "col.share": Text("Points earned", "점수 인정"),
    "col.defect": Text("Planted defect", "심어 둔 결함"),
    "col.expected": Text("Expected check", "해당 검사"),
    "col.outcome": Text("Outcome", "결과"),
    "claim.detection": Text("Detection", "검출력"),
    "claim.detection.measured": Text(
        "its checks caught {killed} of {mapped} planted defects", "심어 둔 결함 {mapped}건 중 {killed}건 발견"
    ),
    "claim.detection.unmapped": Text(
        "no planted defect has tried its checks: {share} of the points",
        "결함 주입 시험 없음: 점수의 {share} 인정",
    ),
    "claim.detection.changed": Text(
        "its checks changed since they were tried: {share} of the points",
        "시험 이후 검사가 변경됨: 점수의 {share} 인정",
    ),
    "claim.chance": Text("Chance of proof", "입증 확률"),
    "claim.chance.value": Text(
        "a run of this size proves it with {chance} when the truth is half of what the target allows",
        "실제 값이 목표 허용치의 절반일 때, 이 규모의 실행으로 입증될 확률은 {chance}",
    ),
    # 14 attempts
    "attempts": Text("Attempts at this commit", "같은 커밋에서의 시도"),
    "attempts.some": Text(
        "Earlier runs of the same commit, target and profile: {count}. What they counted is pooled with this run's, "
        "failures included; rerunning until green changes nothing.",
        "같은 커밋, 대상, 프로파일로 실행한 이전 시도는 {count}회입니다. 실패를 포함한 기록을 이번 실행과 합산하므로, "
        "통과할 때까지 반복해도 결과가 좋아지지 않습니다.",
    ),
    "attempts.none": Text(
        "No earlier run of this commit and profile is recorded here.",
        "이 커밋과 프로파일로 실행한 이전 기록이 없습니다.",
    ),
    "attempts.dirty": Text(
        "Nothing is pooled: with uncommitted changes no two runs examine the same thing.",
        "커밋되지 않은 변경이 있어 같은 대상을 점검했다고 볼 수 없으므로 합산하지 않았습니다.",
    ),
    "attempts.ended": Text("exit status {status}", "종료 상태 {status}"),
    "attempts.unfinished": Text("ended before its report", "보고서 작성 전 종료"),
    "attempts.whole": Text("all claims", "전체 항목"),
    "attempts.failed": Text("Failed there", "실패 항목"),
    "attempts.for": Text("Run for", "실행 범위"),
}
