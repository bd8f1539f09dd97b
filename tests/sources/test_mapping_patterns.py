"""Topic patterns and templates."""

import pytest

from ringmain.sources.mapping_patterns import Template, TopicPattern


def matched(pattern: str, topic: str) -> dict[str, str] | None:
    return TopicPattern.parse(pattern).match(topic, topic.split("/"))


@pytest.mark.parametrize(
    ("pattern", "topic", "names"),
    [
        ("meters/{meter}/{quantity}", "meters/m1/p", {"meter": "m1", "quantity": "p"}),
        ("meters/{meter}/{quantity}", "meters/m1", None),
        ("meters/{meter}/{quantity}", "meters/m1/p/x", None),
        ("meters/{meter}/{quantity}", "Meters/m1/p", None),
        ("meters/{meter}/{quantity}", "meters//p", None),
        ("a/+/{b}", "a/x/y", {"b": "y"}),
        ("a/#", "a", {"#": ""}),
        ("a/#", "a/b/c", {"#": "b/c"}),
        ("a/#", "ab", None),
        ("#", "a/b", {"#": "a/b"}),
        ("#", "$SYS/load", None),
        ("{x}/load", "$SYS/load", None),
        ("$SYS/{x}", "$SYS/load", {"x": "load"}),
        ("/{x}", "/y", {"x": "y"}),
        ("{x}", "Zähler 7", {"x": "Zähler 7"}),
    ],
)
def test_a_pattern_names_the_levels_of_the_topics_it_is_for(
    pattern: str, topic: str, names: dict[str, str] | None
) -> None:
    assert matched(pattern, topic) == names


@pytest.mark.parametrize(
    "pattern",
    ["", "a/#/b", "meter-{id}/p", "{a}/{a}", "a/{}", "a/{b", "a/b}", "a/b+", "a/b#", "{1a}", "a\x00"],
)
def test_a_pattern_that_means_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="expected "):
        TopicPattern.parse(pattern)


def test_a_pattern_gives_the_mqtt_filter_that_covers_it() -> None:
    assert TopicPattern.parse("meters/{meter}/+/#").filter() == "meters/+/+/#"


def test_a_template_is_filled_from_the_named_levels() -> None:
    template = Template.parse("{meter}/x-{#}.{meter}", {"meter", "#"})
    assert template.fill({"meter": "m1", "#": "a/b"}) == "m1/x-a/b.m1"


@pytest.mark.parametrize(
    ("text", "message"), [("{other}", r"\{meter\}"), ("a{", "around a name"), ("}", "around")]
)
def test_a_template_with_an_unknown_name_or_a_stray_brace_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Template.parse(text, {"meter"})
