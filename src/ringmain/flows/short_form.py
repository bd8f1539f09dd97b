"""A flow of one window step has a short form in the configuration; here it becomes the chain that it stands for."""

from __future__ import annotations

from ringmain.flows.flow import FlowSettings
from ringmain.flows.settings import WindowSettings


def flow_of(settings: FlowSettings | WindowSettings) -> FlowSettings:
    """The chain that settings stand for."""
    if isinstance(settings, FlowSettings):
        return settings
    return FlowSettings(settings.to, (settings.step(),), settings.from_, None, settings.max_ahead_ns)
