"""The phrases of every face of the report, English beside Korean: data for `words`, no code.

Keys name the place of a phrase. A phrase may have `{slots}`; both languages have the same ones (a test holds
it).
"""

from __future__ import annotations

from typing import Final

from readiness.judge.model import Text
from readiness.render.catalogue_faults import FAULT_PHRASES
from readiness.render.catalogue_judge import JUDGE_PHRASES

PHRASES: Final[dict[str, Text]] = {
    **FAULT_PHRASES,
    **JUDGE_PHRASES,
    # Verdicts, states, bands
    "verdict.proven": Text("PROVEN", "입증"),
    "verdict.failed": Text("FAILED", "실패"),
    "verdict.inconclusive": Text("INCONCLUSIVE", "미확정"),
    "verdict.not_run": Text("NOT RUN", "미실행"),
    "verdict.invalid": Text("INVALID", "무효"),
    "verdict.not_applicable": Text("NOT APPLICABLE", "해당 없음"),
    "verdict.held": Text("HELD", "충족"),
    "verdict.unknown": Text("UNKNOWN", "미확인"),
    "band.proven": Text("proven", "입증"),
    "band.unknown": Text("unknown", "미확인"),
    "band.failed": Text("failed", "실패"),
    "part.real": Text("real", "실제"),
    "part.embedded": Text("real, embedded", "실제(내장)"),
    "part.simulated": Text("simulated", "모의"),
    "part.missing": Text("missing", "없음"),
    "step.done": Text("done", "완료"),
    "step.failed": Text("failed", "실패"),
    "step.skipped": Text("skipped", "건너뜀"),
    "term.short": Text("Short term: this week", "단기: 이번 주"),
    "term.middle": Text("Middle term: this quarter", "중기: 이번 분기"),
    "term.long": Text("Long term: after that", "장기: 그 이후"),
    # How a claim is judged
    "estimator.checks": Text("every case must hold", "모든 사례 충족"),
    "estimator.zero_violations": Text(
        "no violation in n trials, 3/n rule", "n회 시행에서 위반 0건, 3/n 규칙"
    ),
    "estimator.rate": Text("rate, Clopper–Pearson bound", "비율, Clopper–Pearson 신뢰한계"),
    "estimator.percentile": Text("percentile, bound by order statistics", "백분위수, 순서통계량 신뢰한계"),
    "estimator.count": Text("count, Poisson bound", "건수, 푸아송 신뢰한계"),
    "estimator.mtbf": Text("time between failures, chi-squared bound", "장애 간격, 카이제곱 신뢰한계"),
    "estimator.availability": Text(
        "share of time up, from exposure and recoveries", "관측 시간과 복구 시간으로 구한 가동 비율"
    ),
    "estimator.worst": Text("worst value of all samples", "전체 표본의 최악값"),
    # 1 head
    "report.name": Text("Reliability and observability scorecard", "신뢰성·관측성 최종 점검 보고서"),
    "skip": Text("Skip to the verdict", "판정으로 바로 가기"),
    "head.commit": Text("Commit", "커밋"),
    "head.dirty": Text("(with uncommitted changes)", "(커밋되지 않은 변경 포함)"),
    "head.profile": Text("Profile", "프로파일"),
    "head.when": Text("Started", "시작 시각"),
    "head.duration": Text("Duration", "소요 시간"),
    "head.run": Text("Run", "실행 ID"),
    # 2 verdict
    "score.overall": Text("Overall", "전체 종합"),
    "score.reliability": Text("Reliability", "신뢰성"),
    "score.observability": Text("Observability", "관측성"),
    "score.struck": Text(
        "The score is struck through because a gate failed; no number of points buys that back.",
        "필수 조건이 충족되지 않아 점수에 취소선을 그었습니다. 다른 점수로 만회할 수 없습니다.",
    ),
    "score.how": Text("How the score is made", "점수 산정 방식"),
    "score.explained": Text(
        "Only PROVEN earns points, and only for what its checks have been seen to catch: a section is worth floor(100 "
        "× earned weight / total weight). The overall score is the smaller of the weighted mean and the worst section "
        "plus 20. What was not run or stays open counts as unknown, never as passed.",
        "입증된 항목만, 그 검사가 잡아낸 것으로 확인된 만큼 점수를 얻습니다. 영역 점수는 100 × 획득 가중치 / 전체 "
        "가중치를 내림한 값이며, 전체 종합 점수는 가중 평균과 ‘최저 영역 점수 + 20’ 중 작은 값입니다. 실행되지 "
        "않았거나 미확정인 항목은 통과로 치지 않고 미확인으로 집계합니다.",
    ),
    # The parts' headings
    "part.changes": Text("What changed", "이전 실행 대비 변화"),
    "part.changes.note": Text(
        "Against the last run of this profile.", "같은 프로파일의 직전 실행과 비교합니다."
    ),
    "part.gates": Text("Gates", "필수 조건"),
    "part.gates.note": Text("Conditions that no score buys back.", "점수로 만회할 수 없는 조건입니다."),
    "part.open": Text("Failed and open claims", "실패·미확정 항목"),
    "part.open.note": Text(
        "Failures first, each with the command that repeats it.", "실패 항목부터 재현 명령과 함께 표시합니다."
    ),
    "part.reliability": Text("Reliability results", "신뢰성 확인 결과"),
    "part.observability": Text("Observability results", "관측성 구성 결과"),
    "part.results.note": Text(
        "Every claim of each section; proven ones are folded.",
        "영역별 전체 항목입니다. 입증된 항목은 접혀 있습니다.",
    ),
    "part.sla": Text("SLA", "목표 대비 실측"),
    "part.sla.note": Text(
        "Grey: what the founding report claimed without evidence.",
        "회색은 최초 보고서가 증거 없이 제시한 값입니다.",
    ),
    "part.figures": Text("Reliability figures", "신뢰성 지표"),
    "part.figures.note": Text(
        "Each with the exposure behind it, and what would prove the target.",
        "각 지표의 관측량과 목표 입증에 필요한 양을 함께 적습니다.",
    ),
    "part.load": Text("Under load and fault", "부하와 장애"),
    "part.load.note": Text(
        "One time axis for all panels; shaded bands are faults.",
        "모든 그래프는 시간축을 공유하며, 음영은 장애 주입 구간입니다.",
    ),
    "part.detection": Text("Detection power", "검출력"),
    "part.detection.note": Text(
        "A check is only worth what it can catch.", "검사의 가치는 결함을 얼마나 잡아내는지에 달려 있습니다."
    ),
    "part.limits": Text("What this run does not show", "이 실행이 증명하지 않는 것"),
    "part.limits.note": Text(
        "Written from the plan and the machine.", "실행 계획과 장비를 기준으로 작성했습니다."
    ),
    "part.deployment": Text("Deployment and next steps", "배포와 후속 조치"),
    "part.appendix": Text("Appendix", "부록"),
    "part.appendix.note": Text(
        "To recompute every figure a year later.", "1년 뒤에도 모든 수치를 다시 계산할 수 있도록 남깁니다."
    ),
    # Table headings
    "col.claim": Text("Claim", "항목"),
    "col.statement": Text("Statement", "내용"),
    "col.before": Text("Before", "이전"),
    "col.after": Text("Now", "현재"),
    "col.gate": Text("Gate", "필수 조건"),
    "col.state": Text("State", "상태"),
    "col.behind": Text("Evidence behind it", "근거"),
    "col.sla": Text("Objective", "지표"),
    "col.target": Text("Target", "목표"),
    "col.measured": Text("Measured", "실측"),
    "col.needed": Text("n needed", "추가 표본"),
    "col.verdict": Text("Verdict", "판정"),
    "col.founding": Text("Once claimed", "최초 보고값"),
    "col.fault": Text("Fault", "장애 주입"),
    "col.begin": Text("Begin, s", "시작, 초"),
    "col.end": Text("End, s", "종료, 초"),
    "col.lasted": Text("Lasted, s", "지속, 초"),
    "col.setting": Text("Setting", "설정"),
    "col.used": Text("As used", "사용값"),
    "col.required": Text("As required", "요구값"),
    "col.points": Text("Points", "점수"),
    "col.do": Text("What to do", "조치 내용"),
    "col.for": Text("For", "대상"),
    "col.part": Text("Part", "구성 요소"),
    "col.version": Text("Version", "버전"),
    "col.note": Text("Note", "비고"),
    "col.step": Text("Step", "단계"),
    "col.seconds": Text("Seconds", "초"),
    "col.evidence": Text("Evidence", "증거"),
    "col.digest": Text("SHA-256", "SHA-256"),
    "col.time": Text("Time, s", "시각, 초"),
    "col.number": Text("No.", "번호"),
    # A claim
    "claim.target": Text("Target", "목표"),
    "claim.needed": Text("To settle it", "판정에 필요한 양"),
    "claim.fault": Text("Fault", "장애 주입"),
    "claim.founding": Text("Once claimed", "최초 보고값"),
    "claim.rule": Text("Judged by", "판정 기준"),
    "claim.weight": Text("weight {weight}", "가중치 {weight}"),
    "claim.gate": Text("gate: {gate}", "필수 조건: {gate}"),
    "claim.spec": Text("specification {spec}", "명세 {spec}"),
    "claim.repeat": Text("Repeat", "재현 명령"),
    "claim.checks": Text("Checks", "검사"),
    "claim.evidence": Text("Evidence", "증거"),
    "claim.no_evidence": Text("none recorded", "기록 없음"),
    "claim.behind": Text("How it was judged, checks and evidence", "판정 기준·검사·증거"),
    "claim.clipped": Text(
        "… ({count} more characters in the evidence)", "… (나머지 {count}자는 증거 파일 참조)"
    ),
    # 3 - 5
    "changes.new": Text("new", "신규"),
    "changes.against": Text("Compared with run {run}.", "비교 대상: 실행 {run}"),
    "changes.none": Text("No verdict moved since run {run}.", "실행 {run} 이후 판정이 바뀐 항목이 없습니다."),
    "changes.first": Text(
        "This is the first recorded run of this profile, so there is nothing to compare with.",
        "이 프로파일의 첫 실행이므로 비교할 대상이 없습니다.",
    ),
    "gates.no_claims": Text("no claim stands behind this gate", "이 조건을 뒷받침하는 항목이 없습니다"),
    "open.none": Text(
        "Nothing failed and nothing is open: every claim that applies is proven.",
        "실패하거나 미확정인 항목이 없습니다. 적용되는 모든 항목이 입증되었습니다.",
    ),
    "tools.filter": Text("Filter claims", "항목 검색"),
    "copy.ready": Text("Copy", "복사"),
    "copy.done": Text("Copied", "복사됨"),
    # 7 - 9
    "alerts.timeline": Text("Alert timeline", "알림 타임라인"),
    "alerts.timeline.not_run": Text(
        "No fire drill is part of this version: fault, scrape, pending, firing, routed, delivered and "
        "resolved were not timed.",
        "이 버전에는 알림 훈련이 없습니다. 장애 주입부터 수집, 대기, 발화, 라우팅, 전달, 해소까지의 시각을 "
        "측정하지 않았습니다.",
    ),
    "panels": Text("Dashboard panels", "대시보드 패널"),
    "panels.not_run": Text(
        "The panels are not drawn in this version; the charts of part 10 come from the run's own "
        "measurements.",
        "이 버전에서는 패널을 그리지 않습니다. 10장의 그래프는 이번 실행에서 직접 측정한 값입니다.",
    ),
    "sla.none": Text(
        "No claim of this profile belongs to an SLA.", "이 프로파일에는 SLA에 해당하는 항목이 없습니다."
    ),
    "figures.mttr": Text("MTTR", "평균 복구 시간 (MTTR)"),
    "figures.mtbf": Text("MTBF", "평균 장애 간격 (MTBF)"),
    "figures.availability": Text("Availability", "가용성"),
    "figures.integrity": Text("Data integrity", "데이터 무결성"),
    "figures.to_prove": Text("To prove it:", "입증 조건:"),
    "figures.no_claim": Text(
        "No claim of this profile measures it.", "이 프로파일에는 이를 측정하는 항목이 없습니다."
    ),
    # 10 load and fault
    "load.no_series": Text(
        "No time series was recorded, so no chart is drawn.",
        "시계열이 기록되지 않아 그래프를 그리지 않았습니다.",
    ),
    "chart.data": Text("The data as a table", "데이터 표"),
    "chart.zoom": Text("Zoom", "확대"),
    "chart.thinned": Text(
        "{shown} of {all} rows; all of them are in evidence/raw/series.json.",
        "전체 {all}행 중 {shown}행입니다. 전체 데이터는 evidence/raw/series.json에 있습니다.",
    ),
    # Charts
    "chart.time": Text("The run over time", "시간에 따른 변화"),
    "chart.time.axis": Text("Time since the start of recording, s", "기록 시작 이후 시간, 초"),
    "chart.faults": Text("Shaded: {names}.", "음영: {names}."),
    "chart.arrivals": Text("Job flow", "작업 흐름"),
    "chart.latency": Text("API response time", "API 응답 시간"),
    "chart.failures": Text("Failures", "실패"),
    "chart.dead": Text("Dead letters", "DLQ"),
    "chart.streams": Text("Open event streams", "열린 이벤트 스트림"),
    "chart.quiet": Text("Zero throughout: {names}.", "전 구간 0: {names}."),
    "chart.queue": Text("Queue depth", "대기열 길이"),
    "chart.active": Text("In work", "처리 중"),
    "chart.memory": Text("Worker memory", "워커 메모리"),
    "chart.cpu": Text("Machine CPU", "장비 CPU 사용률"),
    "chart.tokens": Text("Memory token use", "메모리 토큰 사용률"),
    "chart.panel.above": Text(
        "The target of “{panel}”, {target}, lies above its axis.",
        "‘{panel}’의 목표({target})는 축 범위보다 위에 있습니다.",
    ),
    "symbol.jobs": Text("jobs", "건"),
    "symbol.jobs/s": Text("jobs/s", "건/초"),
    "symbol.streams": Text("count", "개"),
    "symbol.s": Text("s", "초"),
    "symbol.1/s": Text("1/s", "건/초"),
    "series.planned": Text("planned", "계획"),
    "series.arrivals": Text("arrived", "도착"),
    "series.ended": Text("ended", "완료"),
    "series.failed_requests": Text("failed requests", "실패한 요청"),
    "series.broken_streams": Text("broken streams", "끊긴 스트림"),
    "series.dead": Text("dead letters", "DLQ 항목"),
    "series.streams": Text("event streams", "이벤트 스트림"),
    "series.worker": Text("worker {number}", "워커 {number}"),
    "series.p50": Text("P50", "P50"),
    "series.p95": Text("P95", "P95"),
    "series.p99": Text("P99", "P99"),
    "series.queue": Text("queue depth", "대기열 길이"),
    "series.queue_killed": Text("during kills", "강제 종료 중"),
    "series.active": Text("jobs in work", "처리 중 작업"),
    "series.cpu": Text("CPU", "CPU 사용률"),
    "series.tokens": Text("token use", "토큰 사용률"),
    "chart.durations": Text("Job duration", "작업 처리 시간"),
    "chart.distribution": Text("Distribution of job durations", "작업 처리 시간 분포"),
    "chart.durations.note": Text("{count} jobs.", "작업 {count}건"),
    "chart.durations.axis": Text("Duration, {unit}", "처리 시간, {unit}"),
    "chart.share": Text("Share of jobs", "작업 비율"),
    "chart.share.axis": Text("Jobs done within", "누적 완료 비율"),
    "chart.p95": Text("P95 {value} {unit}", "P95 {value}{unit}"),
    "chart.median": Text("median {value} {unit}", "중앙값 {value}{unit}"),
    "chart.target": Text("target {target}", "목표 {target}"),
    "chart.recoveries": Text("Time to recover", "복구 시간"),
    "chart.recoveries.note": Text(
        "{count} recoveries in the order of the faults.", "장애 주입 순서대로 {count}건입니다."
    ),
    "chart.recoveries.above": Text(
        "{count} recoveries in the order of the faults; the target, {target}, lies far above this axis.",
        "장애 주입 순서대로 {count}건입니다. 목표({target})는 이 축보다 훨씬 위에 있습니다.",
    ),
    "chart.recoveries.axis": Text("Time to recover, {unit}", "복구 시간, {unit}"),
    "chart.recoveries.order": Text("Fault number", "장애 주입 순번"),
    # 11 - 13
    "limits.none": Text(
        "The judge recorded no limits for this run.", "이번 실행에 대해 기록된 한계가 없습니다."
    ),
    "settings": Text("Deployment settings", "배포 설정"),
    "settings.none": Text("No setting was recorded.", "기록된 설정이 없습니다."),
    "recommendations": Text("Recommendations", "권장사항"),
    "recommendations.none": Text("Nothing is left to recommend.", "추가로 권장할 사항이 없습니다."),
    "operations": Text("Operations", "운영 지원"),
    "operations.dashboards": Text("Dashboards", "대시보드"),
    "operations.runbooks": Text("Runbooks", "런북"),
    "operations.contacts": Text("Contacts", "연락처"),
    "operations.none": Text(
        "The profile names no operations contacts.", "프로파일에 운영 연락처가 없습니다."
    ),
    "conclusion": Text("Conclusion", "결론"),
    # 14 appendix
    "appendix.verify": Text("Recompute this report", "보고서 재계산"),
    "appendix.environment": Text("Environment", "실행 환경"),
    "appendix.parts": Text("Parts of the stack", "스택 구성 요소"),
    "appendix.loosened": Text("Thresholds loosened since the base", "기준 대비 완화된 임계값"),
    "appendix.loosened.some": Text(
        "Compared with {base}, this profile asks less in {count} places:",
        "기준 {base}과 비교하여 이 프로파일에서 완화된 조건은 {count}건입니다.",
    ),
    "appendix.loosened.none": Text(
        "Compared with {base}, this profile asks for nothing less.",
        "기준 {base}과 비교하여 완화된 조건이 없습니다.",
    ),
    "appendix.loosened.no_base": Text(
        "There was no base to compare the thresholds with.", "임계값을 비교할 기준이 없었습니다."
    ),
    "appendix.steps": Text("Steps", "실행 단계"),
    "appendix.digests": Text("Digests of the evidence", "증거 해시값"),
    "appendix.digests.count": Text("Evidence files of {count} claims", "항목 {count}건의 증거 파일"),
    "env.command": Text("Command", "명령"),
    "env.seed": Text("Seed", "시드"),
    "env.started": Text("Started", "시작"),
    "env.finished": Text("Finished", "종료"),
    "env.commit": Text("Commit", "커밋"),
    "env.profile": Text("Profile hash", "프로파일 해시"),
    "env.python": Text("Python", "Python"),
    "env.platform": Text("Platform", "플랫폼"),
    "env.machine": Text("Machine", "장비"),
    "env.machine.value": Text("{cpus} CPUs, {memory} memory", "CPU {cpus}개, 메모리 {memory}"),
    "env.evidence": Text("Evidence", "증거"),
    "env.evidence.value": Text(
        "{files} files, {records} records, {bytes}", "파일 {files}개, 기록 {records}건, {bytes}"
    ),
    "env.manifest": Text("Manifest SHA-256", "매니페스트 SHA-256"),
    "env.harness": Text("Harness", "하네스"),
    "footer": Text(
        "Made by readiness {harness} from scorecard.json ({schema}); the same JSON is inside this file.",
        "readiness {harness} 버전이 scorecard.json({schema})을 바탕으로 작성했습니다. 같은 JSON이 이 파일 안에 "
        "들어 있습니다.",
    ),
    "unit.seconds": Text("{value} s", "{value}초"),
    "unit.minutes": Text("{minutes} min {seconds} s", "{minutes}분 {seconds}초"),
    "unit.hours": Text("{hours} h {minutes} min", "{hours}시간 {minutes}분"),
    # Terminal and Markdown
    "terminal.open": Text("OPEN", "미확정"),
    "terminal.repeat": Text("repeat:", "재현:"),
    "terminal.report": Text("report:", "보고서:"),
    "terminal.more": Text(
        "{count} more open claims are in the report", "나머지 미확정 항목 {count}건은 보고서 참조"
    ),
    "terminal.left_out": Text("{count} claims were left out (--only)", "제외된 항목 {count}건(--only 실행)"),
    "terminal.verdict": Text(
        "{word}: {gates}, {proven} of {claims} claims proven, score {score} ({letter}) in {seconds} s",
        "{word}: {gates}, 항목 {claims}건 중 {proven}건 입증, 점수 {score} ({letter}), {seconds}초 소요",
    ),
    "terminal.gates.failed": Text("{count} gate failed", "필수 조건 {count}건 실패"),
    "terminal.gates.failed.many": Text("{count} gates failed", "필수 조건 {count}건 실패"),
    "terminal.gates.open": Text("{held} of {count} gates held", "필수 조건 {count}건 중 {held}건 충족"),
    "terminal.gates.held": Text("all {count} gates held", "필수 조건 {count}건 모두 충족"),
    "terminal.gates.none": Text("no gate", "필수 조건 없음"),
    "markdown.all_claims": Text("All {count} claims", "전체 항목 {count}건"),
    "markdown.section": Text("Section", "영역"),
    "markdown.score": Text("Score", "점수"),
}
