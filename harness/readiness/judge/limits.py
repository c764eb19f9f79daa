"""What the run does not show: said in every report, derived from its parts, settings and claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from readiness.evidence.records import ClaimFile
from readiness.judge.detection import CapState, DetectionResult
from readiness.judge.model import ClaimResult, Part, PartState, RunContext, Text, Verdict
from readiness.judge.parts import part_title
from readiness.judge.profile_model import EstimatorKind

# Settings whose value in a check must be said when it is not the specification's (C1, B2).
SPECIFIED = {
    "RAG_RETRY_BASE_SECONDS": ("1", "1.0"),
    "RAG_EMBEDDING_RATE_WINDOW_SECONDS": ("60", "60.0"),
    "RAG_EMBEDDING_RATE_LIMIT": ("1000",),
}
SHORTER_WAITS = Text(
    "Alertmanager ran with shorter group waits than the shipped configuration; routes, receivers and inhibition are "
    "the shipped ones.",
    "Alertmanager는 제공되는 설정보다 짧은 그룹 대기 시간으로 실행했습니다. 라우팅, 수신자, 억제 규칙은 제공되는 "
    "설정과 같습니다.",
)
ALWAYS = (
    Text(
        "Everything ran on one machine over loopback: no network latency, no partition between machines, no other "
        "tenant.",
        "모든 구성 요소가 한 대의 머신에서 루프백으로 동작했습니다. 네트워크 지연, 머신 간 단절, 다른 사용자의 부하는 "
        "포함되지 않습니다.",
    ),
    Text(
        "Bounds allow for samples of one run that resemble their neighbours where their order is known; what changes "
        "over longer times than the run lasted, they do not see.",
        "표본의 순서를 아는 경우 신뢰한계는 이웃한 표본의 유사성을 반영합니다. 실행 시간보다 긴 주기의 변화는 "
        "반영하지 못합니다.",
    ),
)


def not_shown(
    context: RunContext,
    claims: Sequence[ClaimResult],
    evidence: Mapping[str, ClaimFile],
    *,
    detection: DetectionResult | None = None,
) -> tuple[Text, ...]:
    """Return one sentence for each limit of the run, the most serious first."""
    sentences: list[Text] = []
    for part in context.parts:
        if part.state in (PartState.MISSING, PartState.SIMULATED):
            sentences.append(_part(part, claims))
        elif part.name == "alertmanager":
            sentences.append(SHORTER_WAITS)
    sentences.extend(_compressed(evidence))
    sentences.extend(_exposure(claim) for claim in claims if _needs_time(claim))
    if context.run.dirty:
        sentences.append(
            Text(
                "The working tree had uncommitted changes: the commit alone does not say what was examined.",
                "커밋되지 않은 변경이 있는 상태에서 실행했으므로, 커밋만으로는 점검 대상을 특정할 수 없습니다.",
            )
        )
    sentences.append(_detection(detection, claims))
    return (*sentences, *ALWAYS)


def _detection(detection: DetectionResult | None, claims: Sequence[ClaimResult]) -> Text:
    """Say how far the checks themselves have been tried."""
    if detection is None:
        return Text(
            "Whether these checks notice defects was not measured: a check that cannot fail would pass here too.",
            "검사가 결함을 실제로 잡아내는지는 측정하지 않았습니다. 실패할 수 없는 검사라도 여기서는 통과합니다.",
        )
    if not detection.measured_at:
        return Text(
            f"Whether these checks notice defects was not measured ({detection.file} is not there), so proven claims "
            "earn a part of their points only.",
            f"검사가 결함을 잡아내는지 측정한 기록({detection.file})이 없어, 입증된 항목도 점수의 일부만 얻습니다.",
        )
    untried = sum(c.detection is not None and c.detection.state != CapState.MEASURED for c in claims)
    return Text(
        f"{untried} of {len(claims)} claims rest on checks that no planted defect has tried as they are now; "
        f"{detection.missed + detection.wrong_check + detection.crashed} of {detection.judged} planted defects were "
        "not noticed as they should be.",
        f"항목 {len(claims)}건 중 {untried}건의 검사는 현재 상태로 결함 주입 시험을 거치지 않았습니다. 심어 둔 결함 "
        f"{detection.judged}건 중 {detection.missed + detection.wrong_check + detection.crashed}건은 의도한 대로 "
        "발견되지 않았습니다.",
    )


def _compressed(evidence: Mapping[str, ClaimFile]) -> list[Text]:
    """Say which claims were examined with other times than the specification's, as their `facts` records tell."""
    found: dict[tuple[str, str], list[str]] = {}
    for claim, file in sorted(evidence.items()):
        for record in file.records:
            settings = record.data.get("settings") if record.kind == "facts" else None
            for name, value in settings.items() if isinstance(settings, Mapping) else ():
                if name in SPECIFIED and str(value) not in SPECIFIED[name]:
                    names = found.setdefault((str(name), str(value)), [])
                    names.extend([claim] if claim not in names else [])
    return [
        Text(
            f"{', '.join(claims)} ran with {name} = {value}, not {SPECIFIED[name][0]} as specified: times were "
            "compressed to fit the run.",
            f"{', '.join(claims)} 항목은 실행 시간을 줄이기 위해 {name} = {value} 값으로 실행했습니다. "
            f"명세의 값은 {SPECIFIED[name][0]}입니다.",
        )
        for (name, value), claims in found.items()
    ]


def _part(part: Part, claims: Sequence[ClaimResult]) -> Text:
    idle = [c.id for c in claims if c.reason and c.reason.params.get("part") == part.name]
    names = f" ({', '.join(idle)})" if idle else ""
    items = f"(항목 {', '.join(idle)})" if idle else ""
    title = part_title(part.name)
    title = title[:1].upper() + title[1:]  # it begins a sentence
    if part.state == PartState.MISSING:
        return Text(
            f"{title} was not there{names}: what it does with this system was not observed.",
            f"{title} 구성 요소가 없어 이 시스템과의 연동{items}은 확인하지 못했습니다.",
        )
    return Text(
        f"{title} was simulated by {part.provider}{names}: the real one may answer, fail and limit otherwise.",
        f"{title} 구성 요소{items}는 {part.provider} 환경으로 대체했습니다. "
        "실제 서비스의 응답, 오류, 제한은 이와 다를 수 있습니다.",
    )


def _needs_time(claim: ClaimResult) -> bool:
    over_time = claim.estimator in (EstimatorKind.MTBF, EstimatorKind.AVAILABILITY)
    return over_time and claim.verdict != Verdict.PROVEN


def _exposure(claim: ClaimResult) -> Text:
    params = claim.reason.params if claim.reason else {}
    if "need_en" not in params:
        return Text(
            f"{claim.id}: nothing about months of operation follows from a run this short.",
            f"{claim.id}: 이처럼 짧은 실행으로는 장기 운영에 대해 말할 수 없습니다.",
        )
    return Text(
        f"{claim.id}: proving it takes {params['need_en']} of observation; this run was too short for it.",
        f"{claim.id}: 입증하려면 {params['need_ko']}의 관측이 필요하며, 이번 실행은 그보다 짧았습니다.",
    )
