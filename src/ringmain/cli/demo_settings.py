"""What the options of `ringmain demo` come to, and the node's configuration that it writes from them.

The configuration is one that a utility could have written, so that whoever opens the file learns how: devices that speak
differently, one flow, one alert, the page. A run that ends soon closes its windows sooner.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ringmain.config_layout import Layout
from ringmain.serve.settings import parse_listen
from ringmain.sim.fleet import UTILITY

CONFIG_NAME = "ringmain-demo.toml"
GRACE, IDLE = "10s", "15s"
SHORT_RUN_S = 60.0
SHORT_GRACE, SHORT_IDLE = "5s", "8s"

_CONFIG = """\
# Written by `ringmain demo`. Run it alone with: ringmain run {file}
[node]
name = "{utility}"
data = "log"
timezone = "Europe/Berlin"
layout = "{layout}"

[catalogue]
file = "series.csv"

[sources.field]
type = "mqtt-listener"
listen = "127.0.0.1:{mqtt_port}"

[[sources.field.map]]                       # household, shop and gas meters, PV park, heat network
topic = "meters/{{meter}}/{{quantity}}"
series = "{{meter}}/{{quantity}}"
device = "{{meter}}"
time = "t"
value = "v"

[[sources.field.map]]                       # infrared readers that speak as Tasmota does
topic = "tele/{{plug}}/SENSOR"
device = "{{plug}}"
series = "{{plug}}/{{name}}"
time = "Time"
values = {{ p = "ENERGY.Power", e = "ENERGY.Total" }}
units = {{ p = "W", e = "kWh" }}

[[sources.field.map]]                       # substations: arrays of objects
topic = "substations/{{substation}}/{{bay}}/{{quantity}}"
series = "{{substation}}/{{bay}}/{{quantity}}"
device = "{{substation}}"
time = "t"
value = "v"

[flows.minute]
from = "readings"
window = "1m"
values = ["count", "mean", "min", "max"]
late = "revise"
grace = "{grace}"
idle = "{idle}"
to = "readings.1m"

[alerts.substation-silent]                  # one that is cut off is an alarm on the page
where = "device like 'ss-%'"
silent = "20s"
subject = "device"
priority = 1
flap = 0                                    # here one is cut off every three minutes
text = "nothing from substation {{subject}}"

[serve]
listen = "{listen}"
sql_timeout = "30s"
{token_line}"""


@dataclass(frozen=True, slots=True)
class Settings:
    """The command's options, checked."""

    listen: str
    token: str | None
    data: Path
    households: int
    rate: float
    seed: int
    seconds: float | None
    open_browser: bool
    layout: Layout

    @property
    def grace_and_idle(self) -> tuple[str, str]:
        """The flow's; less in a run that ends before devices could be silent for long."""
        short = self.seconds is not None and self.seconds < SHORT_RUN_S
        return (SHORT_GRACE, SHORT_IDLE) if short else (GRACE, IDLE)

    @property
    def url(self) -> str:
        """Where the page is, from this machine."""
        host, port = parse_listen(self.listen)
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def configuration(self, file: Path, mqtt_port: int) -> str:
        """The node's configuration, to be written to `file`."""
        grace, idle = self.grace_and_idle
        return _CONFIG.format(
            file=file,
            utility=UTILITY,
            mqtt_port=mqtt_port,
            grace=grace,
            idle=idle,
            listen=self.listen,
            token_line=f'token = "{self.token}"\n' if self.token else "",
            layout=self.layout.value,
        )
