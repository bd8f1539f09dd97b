"""`[alerts.NAME]`: the short form of a flow with one alert, told with its own lines and names."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ringmain.config import ConfigError, load
from ringmain.flows.steps.alert import AlertSettings

DOCS = Path(__file__).parents[2] / "docs"
NODE = '[node]\nname = "n"\n'


def read(tmp_path: Path, text: str) -> object:
    file = tmp_path / "node.toml"
    file.write_text(NODE + text)
    return load(file)


def test_an_alert_is_a_flow_that_writes_alarms(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(
        NODE + '[alerts.hot]\nabove = 90\nfor = "1m"\n[alerts.cold]\nbelow = 3\nvalue = "value"\n'
    )
    config, warnings = load(file)
    assert warnings == []
    assert set(config.flows) == {"hot", "cold"}
    hot = config.flows["hot"]
    assert (hot.from_, hot.to, hot.steps) == ("readings", "alarms", (AlertSettings(above=90.0, for_="1m"),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[alerts.hot]\nabov = 90\n", "node.toml:4: alerts.hot.abov"),
        ("[alerts.hot]\nabove = 90\nfor = 'soon'\n", "node.toml:5: alerts.hot.for"),
        ("[alerts.hot]\nabove = 90\nclear_below = 95\n", "node.toml:5: alerts.hot.clear_below"),
        ("[alerts.hot]\nabove = 90\nwhere = 'valu > 1'\n", "node.toml:5: alerts.hot.where"),
        ("[alerts.hot]\nabove = 90\nmax_ahead = 'x'\n", "node.toml:5: alerts.hot.max_ahead"),
        (
            "[alerts.hot]\nany = [{ above = 90 }, { silent = '1s' }]\n",
            "node.toml:4: alerts.hot.any[1].silent",
        ),
        ("[alerts.hot]\n", "node.toml:3: alerts.hot"),
        (
            "[alerts.hot]\nabove = 90\n[flows.hot]\nwindow = '1m'\nto = 'w'\n",
            "node.toml:3: alerts.hot: expected a name of its own",
        ),
        ("[alerts]\nhot = 3\n", "node.toml:4: alerts.hot: expected a table"),
        ("[alerts.hot]\nabove = 90\nto = 'readings'\n", "alerts.hot.to"),
    ],
)
def test_a_mistake_is_told_with_the_line_and_the_key_of_the_alert(
    tmp_path: Path, text: str, expected: str
) -> None:
    with pytest.raises(ConfigError) as failed:
        read(tmp_path, text)
    assert expected in str(failed.value)


def test_only_alerts_share_a_stream(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="already written"):
        read(tmp_path, '[alerts.hot]\nabove = 90\n[flows.w]\nwindow = "1m"\nto = "alarms"\n')


def test_the_configurations_of_the_alerts_page_are_right(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (DOCS / "alerts.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    config, warnings = read(tmp_path, "\n".join(blocks))  # type: ignore[misc]
    assert warnings == []
    assert set(config.flows) == {"transformer-hot", "meter-silent"}
    assert set(config.sinks) == {"control-room", "night-shift"}
