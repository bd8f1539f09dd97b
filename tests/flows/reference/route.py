"""Routing row by row."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ringmain.flows.steps.route import RouteCase, RouteSettings

from .expressions import CONDITIONS, value_of


class Reference:
    def __init__(self, settings: RouteSettings, known: Any = None) -> None:
        self.settings, self.known = settings, known or {}

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        to = self.settings.otherwise
        for case in self.settings.cases:
            if value_of(case.where, row, self.known) is True:
                to = case.to
                break
        if to == "drop":
            return []
        return [row] if to == "next" else [{**row, "stream": to}]

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        return []


def settings() -> st.SearchStrategy[RouteSettings]:
    to = st.sampled_from(["next", "drop", "routed.a", "routed.b"])
    otherwise = st.sampled_from(["next", "next", "drop", "routed.b"])
    case = st.builds(RouteCase, where=st.sampled_from(CONDITIONS), to=to)
    return st.builds(
        RouteSettings,
        cases=st.lists(case, min_size=1, max_size=3).map(tuple),
        otherwise=otherwise,
    )
