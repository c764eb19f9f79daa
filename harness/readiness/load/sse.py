"""Read an event stream line by line: lines in, events out. Sockets are left to the caller.

Follows https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation, as far
as a measuring client needs it: `retry` is ignored, comments are counted as heartbeats.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_EVENT_CHARACTERS = 1_000_000
"""A stream that never sends an empty line must not fill the generator's memory."""


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """One event. `name` is "message" when the stream does not say."""

    name: str
    data: str
    event_id: str


class EventReader:
    """Collects the fields of one event until an empty line ends it."""

    def __init__(self) -> None:
        self.heartbeats = 0
        self._name = ""
        self._data: list[str] = []
        self._event_id = ""
        self._characters = 0

    def line(self, line: str) -> StreamEvent | None:
        """Take one line without its end; the event that it completes, or None. ValueError when one is
        endless.
        """
        if not line:
            return self._complete()
        if line.startswith(":"):
            self.heartbeats += 1
            return None
        self._characters += len(line)
        if self._characters > MAX_EVENT_CHARACTERS:
            raise ValueError(
                f"event stream: expected events below {MAX_EVENT_CHARACTERS} characters, got more"
            )
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            self._name = value
        elif field == "data":
            self._data.append(value)
        elif field == "id":
            self._event_id = value
        return None

    def _complete(self) -> StreamEvent | None:
        event = StreamEvent(self._name or "message", "\n".join(self._data), self._event_id)
        has_data = bool(self._data)
        self._name, self._data, self._characters = "", [], 0
        return event if has_data else None
