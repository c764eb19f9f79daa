"""Read Prometheus rule files into values that know their file and line. Judges nothing beyond "is it a rule file".

The file is composed, not constructed: aliases are followed only where a rule file has something to say, so that an
alias bomb costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from readiness.errors import BadInput
from readiness.rules.promql import PromqlError, duration_seconds

MAX_FILE_BYTES = 50_000_000
"""Above any rule file seen in public; a larger one is refused before it is parsed."""

RULE_SUFFIXES = (".yml", ".yaml")

_LOADER: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Alert:
    """One alerting rule. `line` is that of its `alert:`, `expr_line` that of its expression, both from 1."""

    name: str
    group: str
    file: Path
    line: int
    expr: str
    expr_line: int
    for_seconds: float
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Record:
    """One recording rule."""

    name: str
    group: str
    file: Path
    line: int
    expr: str
    expr_line: int


@dataclass(frozen=True, slots=True)
class RuleSet:
    """The rules of one file or folder, in the order of files and lines."""

    path: Path
    files: tuple[Path, ...]
    alerts: tuple[Alert, ...]
    records: tuple[Record, ...]

    @property
    def rules(self) -> tuple[Alert | Record, ...]:
        """Every rule, alerts first."""
        return self.alerts + self.records


def load_rules(path: Path) -> RuleSet:
    """Read a rule file, or the rule files directly in a folder (other YAML beside them is passed over).

    BadInput, with file and line, when a file is unreadable, no YAML, or no rule file.
    """
    if path.is_dir():
        candidates = sorted(
            file for file in path.iterdir() if file.suffix in RULE_SUFFIXES and file.is_file()
        )
        files = tuple(file for file in candidates if _mapping(_compose(file)).get("groups") is not None)
        if not files:
            raise BadInput(
                f"{path}: expected rule files (*.yml with groups), found none. Name a folder that has some."
            )
    else:
        files = (path,)
    rules = [rule for file in files for rule in _rules(file)]
    return RuleSet(
        path=path,
        files=files,
        alerts=tuple(rule for rule in rules if isinstance(rule, Alert)),
        records=tuple(rule for rule in rules if isinstance(rule, Record)),
    )


def _compose(file: Path) -> yaml.Node | None:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise BadInput(f"{file}:1: expected at most {MAX_FILE_BYTES} bytes, got: {file.stat().st_size}.")
        text = file.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_LOADER)
    except OSError as error:
        raise BadInput(f"{file}: expected a readable rule file, got: {error.strerror}.") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}:1: expected UTF-8, got a byte that is none at {error.start}.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark is not None else 1
        raise BadInput(f"{file}:{line}: expected YAML, got: {error.problem}. Correct that line.") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{file}:1: expected YAML, got: {' '.join(str(error).split())}.") from None
    except RecursionError:
        raise BadInput(f"{file}:1: expected a rule file, got YAML that is nested too deeply.") from None
    return node if isinstance(node, yaml.Node) else None


def _rules(file: Path) -> Iterator[Alert | Record]:
    root = _compose(file)
    groups = _mapping(root).get("groups")
    if not isinstance(groups, yaml.SequenceNode):
        raise BadInput(f"{file}:{_line(root)}: expected a rule file with a list `groups`. Add it.")
    for group in groups.value:
        fields = _mapping(group)
        name = _text(fields.get("name"))
        rules = fields.get("rules")
        if not isinstance(rules, yaml.SequenceNode):
            raise BadInput(f"{file}:{_line(group)}: expected a group with a list `rules`, got none.")
        for rule in rules.value:
            yield _rule(rule, file=file, group=name)


def _rule(node: yaml.Node, *, file: Path, group: str) -> Alert | Record:
    fields = _mapping(node)
    kinds = [kind for kind in ("alert", "record") if kind in fields]
    expr = fields.get("expr")
    if len(kinds) != 1 or not isinstance(expr, yaml.ScalarNode):
        got = ", ".join(sorted(fields)) or "nothing"
        raise BadInput(f"{file}:{_line(node)}: expected a rule with alert or record, and expr; got: {got}.")
    # A block scalar (`|`, `>`) starts on the line after its indicator.
    expr_line = _line(expr) + (1 if expr.style in ("|", ">") else 0)
    name, line, text = _text(fields[kinds[0]]), _line(fields[kinds[0]]), expr.value.strip()
    if kinds == ["record"]:
        return Record(name=name, group=group, file=file, line=line, expr=text, expr_line=expr_line)
    return Alert(
        name=name,
        group=group,
        file=file,
        line=line,
        expr=text,
        expr_line=expr_line,
        for_seconds=_duration(fields.get("for"), file=file),
        labels=_texts(fields.get("labels")),
        annotations=_texts(fields.get("annotations")),
    )


def _duration(node: yaml.Node | None, *, file: Path) -> float:
    if node is None:
        return 0.0
    try:
        return duration_seconds(_text(node))
    except PromqlError:
        words = f"expected a duration such as 5m in `for`, got: {_text(node)!r}"
        raise BadInput(f"{file}:{_line(node)}: {words}.") from None


def _mapping(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def _texts(node: yaml.Node | None) -> dict[str, str]:
    return {key: _text(value) for key, value in _mapping(node).items()}


def _text(node: yaml.Node | None) -> str:
    return str(node.value).strip() if isinstance(node, yaml.ScalarNode) else ""


def _line(node: yaml.Node | None) -> int:
    return 1 if node is None or node.start_mark is None else node.start_mark.line + 1
