"""Metrics are declared once, counted cheaply, and rendered as Prometheus reads them."""

import re
import threading

import msgspec
import pytest

from ringmain.runtime import counters as counters_module
from ringmain.runtime.counters import LABEL_SETS_MAX, OTHER, Counters, Kind, MetricSnapshot, declare

MESSAGES = "ringmain_trial_messages_total"


@pytest.fixture(autouse=True)
def _own_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counters_module, "_catalogue", {})


def test_a_counter_is_rendered_with_its_help_type_and_labels() -> None:
    metric = declare(MESSAGES, Kind.COUNTER, "Messages.", labels=("source",))
    counters = Counters()
    counters.cell(metric, "field").add(3)
    counters.cell(metric, "field").add()
    assert counters.render() == (
        f'# HELP {MESSAGES} Messages.\n# TYPE {MESSAGES} counter\n{MESSAGES}{{source="field"}} 4\n'
    )


def test_help_and_label_values_are_escaped() -> None:
    metric = declare(MESSAGES, Kind.COUNTER, 'a \\ and\na "b"', labels=("topic",))
    counters = Counters()
    counters.cell(metric, 'x"\\\ny').add()
    text = counters.render()
    assert f'# HELP {MESSAGES} a \\\\ and\\na "b"\n' in text
    assert f'{MESSAGES}{{topic="x\\"\\\\\\ny"}} 1\n' in text


def test_a_histogram_has_cumulative_buckets_a_sum_and_a_count() -> None:
    metric = declare("ringmain_trial_seconds", Kind.HISTOGRAM, "Time.", buckets=(0.1, 1.0))
    counters = Counters()
    histogram = counters.histogram(metric)
    for value in (0.05, 0.1, 0.5, 30):
        histogram.observe(value)
    assert counters.render().splitlines()[2:] == [
        'ringmain_trial_seconds_bucket{le="0.1"} 2',
        'ringmain_trial_seconds_bucket{le="1"} 3',
        'ringmain_trial_seconds_bucket{le="+Inf"} 4',
        "ringmain_trial_seconds_sum 30.65",
        "ringmain_trial_seconds_count 4",
    ]


def test_special_numbers_are_written_as_prometheus_reads_them() -> None:
    metric = declare("ringmain_trial_ratio", Kind.GAUGE, "A ratio.", labels=("of",))
    counters = Counters()
    for label, value in (
        ("a", float("nan")),
        ("b", float("inf")),
        ("c", float("-inf")),
        ("d", 0.25),
        ("e", 1e18),
    ):
        counters.cell(metric, label).set(value)
    values = [line.rsplit(" ", 1)[1] for line in counters.render().splitlines()[2:]]
    assert values == ["NaN", "+Inf", "-Inf", "0.25", "1e+18"]


def test_a_million_label_values_are_bounded_and_still_counted() -> None:
    metric = declare(MESSAGES, Kind.COUNTER, "Messages.", labels=("topic",))
    counters = Counters()
    for number in range(LABEL_SETS_MAX + 500):
        counters.cell(metric, f"t{number}").add()
    assert counters.value(MESSAGES, OTHER) == 500
    assert counters.value(MESSAGES) == LABEL_SETS_MAX + 500
    assert len(counters.render().splitlines()) == 2 + LABEL_SETS_MAX + 1


def test_an_observed_value_is_asked_at_each_rendering_until_ended() -> None:
    metric = declare("ringmain_trial_rows", Kind.GAUGE, "Rows.")
    counters = Counters()
    rows = [5]
    end = counters.observe_with(metric, lambda: rows[0])
    assert counters.render().endswith("ringmain_trial_rows 5\n")
    rows[0] = 7
    assert counters.value("ringmain_trial_rows") == 7
    end()
    assert counters.render() == ""


def test_adding_from_many_threads_loses_nothing() -> None:
    metric = declare(MESSAGES, Kind.COUNTER, "Messages.")
    counters = Counters()

    def work() -> None:
        for _ in range(2000):
            counters.add(metric)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.value(MESSAGES) == 8000


def test_a_second_different_declaration_of_a_name_is_refused() -> None:
    first = declare(MESSAGES, Kind.COUNTER, "Messages.")
    assert declare(MESSAGES, Kind.COUNTER, "Messages.") is first
    with pytest.raises(ValueError, match="declared already, differently"):
        declare(MESSAGES, Kind.COUNTER, "Something else.")


@pytest.mark.parametrize(
    ("name", "kind", "labels"),
    [
        ("messages_total", Kind.COUNTER, ()),
        ("ringmain_messages", Kind.COUNTER, ()),
        ("ringmain_rows_total", Kind.GAUGE, ()),
        ("ringmain_x_seconds", Kind.HISTOGRAM, ("le",)),
        ("ringmain_x_total", Kind.COUNTER, ("Source",)),
    ],
)
def test_names_and_labels_that_break_the_convention_are_refused(
    name: str, kind: Kind, labels: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="expected"):
        declare(name, kind, "Help.", labels=labels)


def test_wrong_label_values_are_refused() -> None:
    metric = declare(MESSAGES, Kind.COUNTER, "Messages.", labels=("source",))
    with pytest.raises(ValueError, match="expected values for labels"):
        Counters().cell(metric)


def test_every_line_follows_the_exposition_grammar() -> None:
    counters = Counters()
    counters.cell(declare(MESSAGES, Kind.COUNTER, "m", labels=("a", "b")), "1", "{}\n").add(2)
    seconds = declare("ringmain_trial_seconds", Kind.HISTOGRAM, "s", labels=("a",))
    counters.histogram(seconds, "x").observe(0.2)
    label = r'[a-z_]+="(?:[^"\\\n]|\\["\\n])*"'
    sample = re.compile(r"[a-z_]+(\{" + label + "(," + label + r")*\})? [-+0-9.eInfNa]+")
    for line in counters.render().splitlines():
        assert line.startswith(("# HELP ", "# TYPE ")) or sample.fullmatch(line), line


def test_what_another_process_counted_is_rendered_with_ones_own_and_equal_labels_are_added() -> None:
    messages = declare(MESSAGES, Kind.COUNTER, "Messages.", labels=("source",))
    seconds = declare("ringmain_trial_seconds", Kind.HISTOGRAM, "Time.", buckets=(0.1, 1.0))
    one, other = Counters(), Counters()
    one.add(messages, 2, "field")
    other.add(messages, 3, "field")
    other.add(messages, 5, "city")
    one.histogram(seconds).observe(0.05)
    other.histogram(seconds).observe(0.05)
    other.histogram(seconds).observe(7)
    encoded = msgspec.msgpack.encode(other.snapshot())
    taken = msgspec.msgpack.decode(encoded, type=list[MetricSnapshot])
    assert taken == other.snapshot()
    one.include(lambda: taken)
    assert one.value(MESSAGES, "field") == 5
    assert one.value(MESSAGES) == 10
    lines = one.render().splitlines()
    assert f'{MESSAGES}{{source="city"}} 5' in lines
    assert f'{MESSAGES}{{source="field"}} 5' in lines
    assert 'ringmain_trial_seconds_bucket{le="0.1"} 2' in lines
    assert "ringmain_trial_seconds_sum 7.1" in lines
    assert "ringmain_trial_seconds_count 3" in lines
    assert sum(line.startswith(f"# TYPE {MESSAGES}") for line in lines) == 1


def test_a_metric_that_only_another_process_declares_is_rendered_with_its_help() -> None:
    metric = declare(MESSAGES, Kind.COUNTER, "Messages.", labels=("source",))
    other, one = Counters(), Counters()
    other.add(metric, 1, "field")
    taken = other.snapshot()
    counters_module._catalogue.clear()
    one.include(lambda: taken)
    assert one.render() == (
        f'# HELP {MESSAGES} Messages.\n# TYPE {MESSAGES} counter\n{MESSAGES}{{source="field"}} 1\n'
    )
