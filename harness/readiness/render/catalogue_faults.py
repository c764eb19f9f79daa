"""The phrases about faults, English beside Korean: part of the catalogue, in a file of its own for its length."""

from __future__ import annotations

from typing import Final

from readiness.judge.model import Text

FAULT_PHRASES: Final[dict[str, Text]] = {
    # Faults, by the name that the profile and the run give them
    "fault.API killed, worker asked to stop": Text(
        "API killed, worker asked to stop", "API 강제 종료, 워커 정상 종료 요청"
    ),
    "fault.Redis gone for seconds": Text("Redis gone for seconds", "Redis 수 초간 중단"),
    "fault.Redis killed with SIGKILL under the rate limiter, and restarted": Text(
        "Redis killed with SIGKILL under the rate limiter, and restarted",
        "속도 제한 동작 중 Redis SIGKILL 강제 종료 후 재시작",
    ),
    "fault.Redis stopped, then started again": Text(
        "Redis stopped, then started again", "Redis 중지 후 재시작"
    ),
    "fault.event stream cut": Text("event stream cut", "이벤트 스트림 절단"),
    "fault.reader that takes nothing": Text("reader that takes nothing", "데이터를 읽지 않는 수신자"),
    "fault.signing key revoked": Text("signing key revoked", "서명 키 폐기"),
    "fault.worker killed or frozen before its commit": Text(
        "worker killed or frozen before its commit", "커밋 직전 워커 강제 종료 또는 정지"
    ),
    "fault.worker killed with SIGKILL right after a cancellation": Text(
        "worker killed with SIGKILL right after a cancellation", "취소 직후 워커 SIGKILL 강제 종료"
    ),
    "fault.workers frozen, one after the other": Text(
        "workers frozen, one after the other", "워커를 차례로 정지"
    ),
    "fault.worker killed with SIGKILL": Text("worker killed with SIGKILL", "워커 SIGKILL 강제 종료"),
    "fault.Redis refusing connections": Text("Redis refusing connections", "Redis 연결 거부"),
    "fault.Redis killed and restarted": Text("Redis killed and restarted", "Redis 강제 종료 후 재시작"),
    "fault.Redis restart": Text("Redis restart", "Redis 재시작"),
    "fault.Redis restarted": Text("Redis restarted", "Redis 재시작"),
    "fault.every fault of the catalogue": Text("every fault of the catalogue", "목록의 모든 장애"),
    # The ledger of the fault step
    "ledger.title": Text("Fault ledger", "장애 주입 기록"),
    "ledger.sum": Text(
        "{planned} faults planned, {active} proven active, {survived} survived, {not_run} not run: {jobs} jobs"
        " acknowledged, {lost} lost, {repeated} effects repeated.",
        "장애 {planned}건 계획, {active}건 실제 발생 입증, {survived}건 통과, {not_run}건 미실행: 접수된 작업 {jobs}건,"
        " 유실 {lost}건, 결과 중복 {repeated}건.",
    ),
    "ledger.none": Text(
        "No fault step ran: only what single checks injected is on the time axis.",
        "장애 주입 단계가 실행되지 않았습니다. 개별 점검이 주입한 장애만 시간축에 표시됩니다.",
    ),
    "ledger.fault": Text("Fault", "장애"),
    "ledger.outcome": Text("Outcome", "결과"),
    "ledger.jobs": Text("Jobs", "작업"),
    "ledger.lost": Text("Lost", "유실"),
    "ledger.repeated": Text("Repeated", "중복"),
    "ledger.recovered": Text("Recovered in, s", "복구 시간, 초"),
    "ledger.at_most": Text("at most {limit}", "최대 {limit}"),
    "ledger.never": Text("never", "복구 안 됨"),
    "ledger.survived": Text("survived", "통과"),
    "ledger.failed": Text("failed", "실패"),
    "ledger.not_run": Text("not run", "미실행"),
    "ledger.unproven": Text("not proven", "발생 미입증"),
    "ledger.error": Text("not played", "실행 오류"),
    # Faults on the time axis
    "faults.axis": Text("On the time axis", "시간축의 장애 주입"),
    "faults.count": Text("Faults on the time axis: {count}", "시간축에 기록된 장애 주입 {count}건"),
    "faults.none": Text(
        "No fault window was recorded on the time axis of this run.",
        "이번 실행의 시간축에 기록된 장애 주입 구간이 없습니다.",
    ),
    "faults.left_out": Text(
        "{count} more are in evidence/raw/series.json.",
        "나머지 {count}건은 evidence/raw/series.json에 있습니다.",
    ),
}
