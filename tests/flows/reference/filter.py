"""The filter row by row."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from ringmain.flows.steps.filter import FilterSettings

from .expressions import CONDITIONS, value_of


class Reference:
    def __init__(self, settings: FilterSettings, known: Any = None) -> None:
        self.settings, self.known = settings, known or {}

    def take(self, row: dict[str, Any], now_ns: int) -> list[dict[str, Any]]:
        return [row] if value_of(self.settings.where, row, self.known) is True else []

    def advance(self, now_ns: int) -> list[dict[str, Any]]:
        return []


def settings() -> st.SearchStrategy[FilterSettings]:
    return st.builds(FilterSettings, where=st.sampled_from(CONDITIONS))
