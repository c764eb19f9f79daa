"""Ask a rule of one instance, and faster: the same expression with more matchers, its windows divided by a factor.

Text in, text out; what the expression means is left to Prometheus. Thresholds stay as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from readiness.rules.promql import duration_seconds, parse_query

_TOKEN = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
      | \[(?P<range>[0-9a-z]+)\]
      | \boffset\s+(?P<offset>[0-9a-z]+)
      | (?P<labels>\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)
                   |[A-Za-z_][A-Za-z0-9_]*\s*(?:=~|!~|!=|=)\s*(?=["']))
      | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*)(?P<brace>\s*\{)?""",
    re.VERBOSE,
)


def narrowed(expr: str, matchers: Mapping[str, str], *, faster: float = 1.0) -> str:
    """`expr` with `label="value"` in every selector, and ranges and offsets `faster` times shorter.

    PromqlError when `expr` is no PromQL.
    """
    metrics = parse_query(expr).metrics
    wanted = ",".join(f'{label}="{value}"' for label, value in matchers.items())

    def replaced(found: re.Match[str]) -> str:
        if found["string"]:
            return found[0]
        if found["range"]:
            return f"[{_shorter(found['range'], faster)}]"
        if found["offset"]:
            return f"offset {_shorter(found['offset'], faster)}"
        if found["name"] not in metrics:
            return found[0]
        return f"{found['name']}{{{wanted}," if found["brace"] else f"{found['name']}{{{wanted}}}"

    text = _TOKEN.sub(replaced, expr)
    parse_query(text)
    return text


def _shorter(duration: str, faster: float) -> str:
    return f"{max(1, round(1000 * duration_seconds(duration) / faster))}ms"
