"""`[alerts.NAME]`: the short form of a flow of one step `alert`, whose alarms go to stream `alarms`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ringmain.flows.flow import FlowSettings
from ringmain.flows.steps.alert import AlertSettings
from ringmain.model.alarm import ALARMS
from ringmain.model.duration import parse_duration


class AlertTable(AlertSettings, frozen=True, tag="alert", rename={"for_": "for", "from_": "from"}):
    """`[alerts.NAME]`: conditions over a stream of readings, and the alarms that follow. As step `alert`, and:"""

    from_: Annotated[str, msgspec.Meta(description="stream to read")] = "readings"
    to: Annotated[str, msgspec.Meta(description="stream of the alarms")] = ALARMS
    max_ahead: Annotated[
        str, msgspec.Meta(description="a time further ahead of its arrival takes no part")
    ] = "5m"

    def flow(self) -> FlowSettings:
        """The flow that the table stands for. Raises ValueError for a duration that is none."""
        step = AlertSettings(**{name: getattr(self, name) for name in AlertSettings.__struct_fields__})
        return FlowSettings(self.to, (step,), self.from_, None, parse_duration(self.max_ahead))
