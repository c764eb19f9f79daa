"""Read YAML strictly, with positions: every complaint is one line that names file, line, key, expectation and
value.

Knows no profile; profile.py says which keys there are. YAML 1.1 surprises are refused rather than explained:
a number is plain decimal, `yes` is no word, anchors and aliases are not read, a key stands once.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

import yaml

from readiness.errors import BadInput
from readiness.judge.model import Text

# A profile is a page or two; more is a mistake or an attack, and PyYAML would take minutes over it.
MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 20
NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
INTEGER = re.compile(r"[+-]?\d{1,15}")
TYPE_NAMES = {"int": "int", "float": "float", "bool": "bool", "null": "nothing", "str": "str"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Cursor:
    """A node of the file with its path of keys; each reading method returns a value or raises BadInput."""

    node: yaml.Node
    path: str
    file: str

    @property
    def line(self) -> int:
        return int(self.node.start_mark.line) + 1

    @property
    def is_scalar(self) -> bool:
        """Whether the node is a single value, neither a mapping nor a list."""
        return isinstance(self.node, yaml.ScalarNode)

    def fail(self, expected: str, *, hint: str = "") -> NoReturn:
        """Raise the one-line complaint about this node."""
        raise BadInput(
            f"{self.file}:{self.line}: {self.path or 'top level'}: expected {expected}, "
            f"got {describe(self.node)}. {hint or 'Correct this line.'}"
        )

    def mapping(self) -> dict[str, Cursor]:
        """Return the entries of a mapping; keys are text and stand once."""
        if not isinstance(self.node, yaml.MappingNode):
            self.fail("a mapping (key: value)")
        entries: dict[str, Cursor] = {}
        for key_node, value_node in self.node.value:
            key = Cursor(key_node, self.path, self.file)
            if not isinstance(key_node, yaml.ScalarNode):
                key.fail("a word as key")
            name = str(key_node.value)
            if name in entries:
                first = entries[name].line
                key.fail(f"each key once ({name!r} stands at line {first} already)", hint="Remove one.")
            entries[name] = Cursor(value_node, f"{self.path}.{name}" if self.path else name, self.file)
        return entries

    def fields(
        self, known: Iterable[str], *, required: Iterable[str] = (), hints: Mapping[str, str] | None = None
    ) -> dict[str, Cursor]:
        """Return the entries of a mapping whose keys are all known and that has the required ones.

        `hints` says what a missing key is for.
        """
        names = list(known)
        entries = self.mapping()
        for name, entry in entries.items():
            if name not in names:
                raise BadInput(
                    f"{self.file}:{_key_line(self.node, name)}: {entry.path}: unknown key {name!r}. "
                    f"{nearest(name, names)}"
                )
        for name in required:
            if name not in entries:
                where = f"{self.file}:{self.line}: {self.path or 'top level'}"
                hint = (hints or {}).get(name, "Add it.")
                raise BadInput(f"{where}: expected the key {name!r}, got none. {hint}")
        return entries

    def items(self, *, at_least: int = 0) -> list[Cursor]:
        """Return the items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self.fail("a list [a, b]")
        found = [
            Cursor(item, f"{self.path}[{index}]", self.file) for index, item in enumerate(self.node.value)
        ]
        if len(found) < at_least:
            self.fail(f"at least {at_least} item{'s' if at_least > 1 else ''}")
        return found

    def text(self, *, longest: int = 2000) -> str:
        """Return a text of 1 to `longest` characters; a plain number or yes/no is not a text."""
        if not isinstance(self.node, yaml.ScalarNode) or _kind(self.node) != "str":
            self.fail("a text", hint="Quote it if it is meant as text.")
        value = str(self.node.value).strip()
        if not 1 <= len(value) <= longest:
            self.fail(f"a text of 1 to {longest} characters")
        return value

    def scalar(self) -> str:
        """Return any single value as it stands in the file (for environment variables)."""
        if not isinstance(self.node, yaml.ScalarNode) or _kind(self.node) == "null":
            self.fail("a single value")
        return str(self.node.value)

    def word(self, known: Sequence[str], *, what: str) -> str:
        """Return a text that is one of `known`; the complaint names the nearest."""
        value = self.text()
        if value not in known:
            self.fail(what, hint=nearest(value, known))
        return value

    def number(self, low: float, high: float, *, what: str = "") -> float:
        """Return a finite number from `low` to `high`."""
        expected = what or f"a number from {low:g} to {high:g}"
        value = self._plain(NUMBER, expected)
        if not (math.isfinite(value) and low <= value <= high):
            self.fail(expected)
        return value

    def integer(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        expected = f"a whole number from {low} to {high}"
        value = int(self._plain(INTEGER, expected))
        if not low <= value <= high:
            self.fail(expected)
        return value

    def bilingual(self) -> Text:
        """Return {en: ..., ko: ...}, both required; a plain text stands for both languages."""
        if isinstance(self.node, yaml.ScalarNode):
            return Text(self.text(), self.text())
        entries = self.fields(("en", "ko"), required=("en", "ko"))
        return Text(entries["en"].text(), entries["ko"].text())

    def each(self, read: Callable[[Cursor], T], *, at_least: int = 0) -> tuple[T, ...]:
        """Return `read` of each item of a list."""
        return tuple(read(item) for item in self.items(at_least=at_least))

    def _plain(self, pattern: re.Pattern[str], expected: str) -> float:
        node = self.node
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        if not plain or not pattern.fullmatch(node.value):
            self.fail(expected)
        return float(node.value)


def compose(content: bytes, *, file: str) -> Cursor:
    """Parse one YAML document to its root; BadInput for what is not strict YAML."""
    roots = compose_all(content, file=file)
    if len(roots) > 1:
        raise BadInput(
            f"{file}:{roots[1].line}: expected YAML of one document, got another one here. Remove the line `---`."
        )
    return roots[0]


def compose_all(content: bytes, *, file: str) -> list[Cursor]:
    """Parse the YAML documents of a file to their roots, at least one; BadInput for what is not strict YAML."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise BadInput(f"{file}:{line}: expected UTF-8 text, got other bytes. Save it as UTF-8.") from None
    if len(text) > MAX_CHARACTERS:
        raise BadInput(f"{file}: expected at most {MAX_CHARACTERS} characters, got {len(text)}. Shorten it.")
    try:
        for event in _events(text, file):
            if isinstance(event, yaml.AliasEvent):
                line = _line_of(event)
                raise BadInput(f"{file}:{line}: expected no alias, got *{event.anchor}. Write the value out.")
        roots = [root for root in yaml.compose_all(text, Loader=yaml.SafeLoader) if root is not None]
    except yaml.YAMLError as error:
        raise BadInput(_syntax_complaint(error, text, file)) from None
    if not roots:
        raise BadInput(f"{file}:1: expected a mapping, got an empty file. See reports/scorecard.yaml.")
    return [Cursor(root, "", file) for root in roots]


def nearest(name: str, known: Sequence[str]) -> str:
    """Return the advice for an unknown name: the nearest known one, else all of them."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"Did you mean {close[0]!r}?"
    return f"Known: {', '.join(known)}."


def describe(node: yaml.Node) -> str:
    """Return a node as a complaint shows it: 'three' (str), a list, nothing."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return f"a list of {len(node.value)}"
    kind = _kind(node)
    if kind == "null":
        return "nothing"
    shown = str(node.value)
    shown = repr(shown if len(shown) <= 60 else shown[:57] + "...")
    return f"{shown if kind in ('str', 'timestamp') else shown[1:-1]} ({kind})"


def _kind(node: yaml.Node) -> str:
    return str(node.tag).rsplit(":", 1)[-1]


def _key_line(node: yaml.Node, name: str) -> int:
    for key_node, _ in node.value:
        if key_node.value == name:
            return int(key_node.start_mark.line) + 1
    return int(node.start_mark.line) + 1


def _events(text: str, file: str) -> Iterator[yaml.Event]:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            line = _line_of(event)
            raise BadInput(f"{file}:{line}: expected at most {MAX_DEPTH} levels, got more. Flatten it.")
        yield event


def _line_of(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark else 1


def _syntax_complaint(error: yaml.YAMLError, text: str, file: str) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    stated = getattr(error, "problem", None) or getattr(error, "reason", None) or error
    problem = " ".join(str(stated).split())
    if mark is None:
        position = getattr(error, "position", 0)
        line = text[: position if isinstance(position, int) else 0].count("\n") + 1
        return f"{file}:{line}: expected YAML, got: {problem}. Correct this line."
    line = mark.line + 1
    lines = text.splitlines()
    source = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in source[: mark.column + 1] or "\\t" in problem:
        return f"{file}:{line}: expected spaces for indentation, got a tab. Replace the tab with spaces."
    return f"{file}:{line}: expected YAML, got: {problem}. Correct this line."
