"""Event streams are read line by line by the rules of the HTML standard."""

from __future__ import annotations

import pytest

from readiness.load import sse
from readiness.load.sse import EventReader, StreamEvent


def read(*lines: str) -> tuple[list[StreamEvent], EventReader]:
    reader = EventReader()
    found = [reader.line(line) for line in lines]
    return [event for event in found if event is not None], reader


def test_an_event_ends_at_the_empty_line() -> None:
    """Fields collect until the empty line; data lines are joined by a newline; one space after the colon goes."""
    found, _ = read("event: state", "id: 3-0", "data: a", "data:b", "data:  c", "")
    assert found == [StreamEvent("state", "a\nb\n c", "3-0")]


def test_an_unfinished_event_is_none() -> None:
    """A stream that closes before the empty line has not sent that event: `end` without it is no clean end."""
    found, _ = read("event: end", "data: {}")
    assert found == []


def test_comments_are_heartbeats_and_no_events() -> None:
    """Heartbeats are counted; an event without data is none; the name is message unless said."""
    found, reader = read(": ping", ":", "", "event: end", "", "data: x", "")
    assert reader.heartbeats == 2
    assert found == [StreamEvent("message", "x", "")]


def test_an_endless_event_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream without empty lines cannot fill the memory of the generator."""
    monkeypatch.setattr(sse, "MAX_EVENT_CHARACTERS", 100)
    with pytest.raises(ValueError, match="below 100 characters"):
        read(*["data: 0123456789"] * 20)
