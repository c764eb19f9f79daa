"""Faults of the upstream API that the target calls: too many requests, errors, slowness, nonsense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from readiness.checking.history import requests_of
from readiness.faults.act import BaseAct, Parameter, Scene
from readiness.targets.base import JsonValue

PROOF_SECONDS = 20.0
HEALTHY = 200
WRONG_REQUESTS = 3
"""So many requests must have met the fault: one may have been the last of its kind."""

RULES: Mapping[str, Mapping[str, JsonValue]] = {
    "429": {"status": 429, "retry_after": 0.2},
    "500": {"status": 500},
    "503": {"status": 503},
    "slow": {"delay_ms": 5000},
    "not_json": {"garbage": "json"},
    "wrong_shape": {"garbage": "shape"},
    "too_few": {"garbage": "count"},
    "nan": {"garbage": "nan"},
}
"""How the simulator answers each request while the fault lasts."""


class Upstream(BaseAct):
    """Let the embedding API misbehave in one way for every request of the lane."""

    parameters: ClassVar[Mapping[str, Parameter]] = {"answers": Parameter("500", words=tuple(RULES))}
    harms_any_worker = False

    def inject(self, scene: Scene) -> None:
        """Script it."""
        self._before = len(scene.lane.embedding_log())
        scene.lane.script_embedding([RULES[self.params.word("answers")]])

    def prove_active(self, scene: Scene) -> str:
        """Requests met the rule, by the simulator's true log."""

        def met() -> list[object]:
            log = scene.lane.embedding_log()[self._before :]
            hit = [one for one in log if one.get("rule") is not None]
            return list(hit) if len(hit) >= WRONG_REQUESTS else []

        hit = scene.wait(met, seconds=PROOF_SECONDS, what=f"{WRONG_REQUESTS} requests that met the fault")
        return f"{len(hit)} requests were answered with {self.params.word('answers')}"

    def heal(self, scene: Scene) -> None:
        """Well behaved again."""
        scene.lane.script_embedding([])
        self._healed_at = len(scene.lane.embedding_log())

    def prove_healed(self, scene: Scene) -> str:
        """A request was answered properly."""

        def well() -> int:
            later = requests_of(scene.lane.embedding_log())[self._healed_at :]
            return sum(one.status == HEALTHY for one in later)

        count = scene.expect(well, seconds=PROOF_SECONDS, what="a proper answer of the embedding API")
        return f"{count} requests answered properly since"
