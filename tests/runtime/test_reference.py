"""The page that lists the metrics is generated, and up to date."""

from pathlib import Path

from ringmain.runtime.reference import metrics_page

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_metrics_page_is_what_the_declarations_give() -> None:
    assert PAGE.read_text() == metrics_page(), "run `make docs`"


def test_every_source_metric_is_listed() -> None:
    assert "| `ringmain_source_readings_total` | counter |" in metrics_page()
