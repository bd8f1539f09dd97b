"""`ringmain flow graph`: how sources, streams, flows and sinks hang together, as text or as a drawing (SVG).

The same configuration gives the same text and the same drawing, so that a change shows in a diff.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from html import escape
from itertools import pairwise
from pathlib import Path

import click

from ringmain.cli.run import load_or_refuse
from ringmain.config import NodeConfig


class Part(StrEnum):
    """What a node of the graph is."""

    SOURCE = "source"
    STREAM = "stream"
    FLOW = "flow"
    SINK = "sink"


@dataclass(frozen=True, slots=True)
class Node:
    """One of the boxes. `lines`: what stands below its name."""

    part: Part
    name: str
    lines: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[Part, str]:
        """Names are unique among their kind."""
        return self.part, self.name


@dataclass(slots=True)
class Graph:
    """Nodes in the order of the configuration, and what follows each."""

    nodes: dict[tuple[Part, str], Node] = field(default_factory=dict)
    after: dict[tuple[Part, str], list[tuple[Part, str]]] = field(default_factory=dict)

    def add(self, node: Node) -> tuple[Part, str]:
        """Make a node known."""
        self.nodes.setdefault(node.key, node)
        self.after.setdefault(node.key, [])
        return node.key

    def link(self, first: tuple[Part, str], then: tuple[Part, str]) -> None:
        """`then` gets what `first` gives."""
        if then not in self.after[first]:
            self.after[first].append(then)


@click.command(
    epilog="\b\nExamples:\n  ringmain flow graph ringmain.toml\n  ringmain flow graph ringmain.toml --svg > flows.svg"
)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--svg", is_flag=True, help="Print a drawing instead of text.")
def graph(file: Path, svg: bool) -> None:
    """Show how the sources, streams, flows and sinks of a configuration FILE hang together."""
    found = graph_of(load_or_refuse(file))
    if svg:
        click.echo(drawing(found), nl=False)
    else:
        for line in text_lines(found):
            click.echo(line)


def graph_of(config: NodeConfig) -> Graph:
    """The graph of a configuration whose flows can be planned."""
    from zoneinfo import ZoneInfo

    from ringmain.flows.flow import tag_of
    from ringmain.flows.graph import plan_flows, reads_of

    planned = plan_flows(config.flows, config.path.parent, ZoneInfo(config.node.timezone))
    found = Graph()
    for name, source in config.sources.items():
        key = found.add(Node(Part.SOURCE, name, (source.type_name,)))
        stream = (
            getattr(source.settings, "to", None) or getattr(source.settings, "stream", None) or "readings"
        )
        found.link(key, found.add(Node(Part.STREAM, str(stream))))
    for plan in planned.plans:
        steps = tuple(f"{tag_of(step.settings)}{_told(step.settings)}" for step in plan.steps)
        for read in reads_of(plan):
            found.add(Node(Part.STREAM, read))
        key = found.add(Node(Part.FLOW, plan.name, steps))
        for read in reads_of(plan):
            found.link((Part.STREAM, read), key)
        for stream in plan.streams:
            found.link(key, found.add(Node(Part.STREAM, stream)))
    for name, sink in config.sinks.items():
        key = found.add(Node(Part.SINK, name, (sink.type_name,)))
        for stream in sink.settings.streams:
            found.link(found.add(Node(Part.STREAM, stream)), key)
    return found


_TOLD = ("where", "unit", "window", "value", "function", "absolute", "percent", "error", "by", "with", "file")
"""Settings that tell most of a step, the first that it has, by its value alone."""
_NAMED = ("above", "below", "silent", "rate_above", "rate_below", "bad", "calendar")
"""And with its name."""
_TOLD_MAX = 56


def _told(settings: object) -> str:
    """What most tells a step from others of its type."""
    for name in (*_TOLD, *_NAMED):
        value = getattr(settings, name, None)
        if isinstance(value, Mapping):
            value = ", ".join(str(one) for one in value.values())
        elif isinstance(value, tuple) and all(isinstance(one, str) for one in value):
            value = ", ".join(value)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            continue
        text = f"{value:g}" if isinstance(value, float) else " ".join(str(value).split())
        text = text if len(text) <= _TOLD_MAX else text[: _TOLD_MAX - 1] + "…"
        return f" by {text}" if name == "by" else f" {name} {text}" if name in _NAMED else f" {text}"
    return ""


# Text


def text_lines(found: Graph) -> list[str]:
    """The graph as a tree of lines; what was shown before is named and not shown again."""
    before = {then for follows in found.after.values() for then in follows}
    roots = [key for key in found.nodes if key not in before]
    shown: set[tuple[Part, str]] = set()
    lines: list[str] = []
    for root in roots:
        lines += _tree(found, root, "", "", shown)
    return lines or ["no flows, no sources, no sinks"]


def _tree(
    found: Graph, key: tuple[Part, str], first: str, rest: str, shown: set[tuple[Part, str]]
) -> Iterator[str]:
    node = found.nodes[key]
    name = {
        Part.SOURCE: f"source {node.name}",
        Part.STREAM: node.name,
        Part.FLOW: f"flow {node.name}",
        Part.SINK: f"sink {node.name}",
    }[node.part]
    about = f": {' > '.join(node.lines)}" if node.lines else ""
    if key in shown:
        yield f"{first}{name} (see above)" if found.after[key] or node.lines else f"{first}{name}"
        return
    shown.add(key)
    yield f"{first}{name}{about}"
    follows = found.after[key]
    for number, then in enumerate(follows):
        last = number == len(follows) - 1
        yield from _tree(
            found, then, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "), shown
        )


# Drawing

_CHARACTER, _LINE, _PAD, _GAP_X, _GAP_Y, _MARGIN = 6.7, 17, 10, 70, 18, 20
_STYLE = """
  text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: #1b2733; }
  .name { font-weight: 600; }
  .told { fill: #52616f; }
  .source rect { fill: #e3f1e6; stroke: #5a9367; }
  .stream rect { fill: #ffffff; stroke: #7b8a99; }
  .flow rect { fill: #e4eefb; stroke: #4a7ab5; }
  .sink rect { fill: #fbeedd; stroke: #b9813c; }
  path { fill: none; stroke: #8a97a5; stroke-width: 1.3; }
  .page { fill: #fafbfc; }
"""


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    width: float
    height: float


def drawing(found: Graph) -> str:
    """The graph as SVG, from left to right."""
    layers = _layers(found)
    ways = _ways(found, layers)
    columns: dict[int, list[str]] = {}
    sizes: dict[str, tuple[float, float]] = {}
    for key, node in found.nodes.items():
        columns.setdefault(layers[key], []).append(_id(key))
        longest = max(len(line) for line in (node.name, *node.lines))
        sizes[_id(key)] = (longest * _CHARACTER * 1.1 + 2 * _PAD, _LINE * (1 + len(node.lines)) + _PAD)
    for way in ways:
        for layer, lane in enumerate(way[1:-1], layers[_key(found, way[0])] + 1):
            columns[layer].append(lane)
            sizes[lane] = (0.0, 6.0)
    _untangle(ways, columns)
    boxes = _boxes(sizes, columns)
    width = max((box.x + box.width for box in boxes.values()), default=200.0) + _MARGIN
    height = max((box.y + box.height for box in boxes.values()), default=40.0) + _MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img">',
        "<title>Flows</title>",
        f"<style>{_STYLE}</style>",
        '<defs><marker id="to" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0,0 L8,4 L0,8 z" style="fill:#8a97a5;stroke:none"/></marker></defs>',
        f'<rect class="page" width="{width:.0f}" height="{height:.0f}"/>',
    ]
    out += [_curve([boxes[one] for one in way]) for way in ways]
    for key, node in found.nodes.items():
        out += _drawn(node, boxes[_id(key)])
    return "\n".join([*out, "</svg>"]) + "\n"


def _id(key: tuple[Part, str]) -> str:
    return f"{key[0].value} {key[1]}"


def _key(found: Graph, name: str) -> tuple[Part, str]:
    return next(key for key in found.nodes if _id(key) == name)


def _layers(found: Graph) -> dict[tuple[Part, str], int]:
    """Each node's column: one more than that of whatever comes before it."""
    layers = dict.fromkeys(found.nodes, 0)
    for _ in range(len(found.nodes)):
        changed = False
        for first, follows in found.after.items():
            for then in follows:
                if layers[then] < layers[first] + 1:
                    layers[then] = layers[first] + 1
                    changed = True
        if not changed:
            break
    return layers


def _ways(found: Graph, layers: Mapping[tuple[Part, str], int]) -> list[list[str]]:
    """Each line as the boxes that it joins, with a lane in each column that it crosses between them."""
    ways: list[list[str]] = []
    for first, follows in found.after.items():
        for then in follows:
            lanes = [
                f"lane {_id(first)} > {_id(then)} {layer}" for layer in range(layers[first] + 1, layers[then])
            ]
            ways.append([_id(first), *lanes, _id(then)])
    return ways


def _untangle(ways: Sequence[Sequence[str]], columns: dict[int, list[str]]) -> None:
    """Order each column by the places of what comes before, so that few lines cross."""
    before: dict[str, list[str]] = {}
    for way in ways:
        for first, then in pairwise(way):
            before.setdefault(then, []).append(first)
    place: dict[str, float] = {}
    for layer in sorted(columns):
        column = columns[layer]
        middle = {
            name: sum(place.get(one, 0.0) for one in before.get(name, ())) / max(1, len(before.get(name, ())))
            for name in column
        }
        column.sort(key=lambda name: middle[name])
        place |= {name: number / max(1, len(column)) for number, name in enumerate(column)}


def _boxes(sizes: Mapping[str, tuple[float, float]], columns: Mapping[int, list[str]]) -> dict[str, _Box]:
    heights = {
        layer: sum(sizes[name][1] + _GAP_Y for name in column) - _GAP_Y for layer, column in columns.items()
    }
    tallest = max(heights.values(), default=0)
    boxes: dict[str, _Box] = {}
    x = float(_MARGIN)
    for layer in sorted(columns):
        width = max(sizes[name][0] for name in columns[layer])
        y = _MARGIN + (tallest - heights[layer]) / 2
        for name in columns[layer]:
            boxes[name] = _Box(x, y, width, sizes[name][1])
            y += sizes[name][1] + _GAP_Y
        x += width + _GAP_X
    return boxes


def _curve(boxes: Sequence[_Box]) -> str:
    """A line from the first box to the last, straight through the lanes between."""
    path = ""
    for first, then in pairwise(boxes):
        x1, y1 = first.x + first.width, first.y + first.height / 2
        x2, y2 = then.x, then.y + then.height / 2
        bend = max(30.0, (x2 - x1) / 2)
        path += f" L{x1:.1f},{y1:.1f}" if path else f"M{x1:.1f},{y1:.1f}"
        path += f" C{x1 + bend:.1f},{y1:.1f} {x2 - bend:.1f},{y2:.1f} {x2:.1f},{y2:.1f}"
    return f'<path d="{path}" marker-end="url(#to)"/>'


def _drawn(node: Node, box: _Box) -> list[str]:
    corner = {Part.STREAM: box.height / 2, Part.FLOW: 4}.get(node.part, 2)
    out = [
        f'<g class="{node.part.value}"><rect x="{box.x:.1f}" y="{box.y:.1f}" width="{box.width:.1f}" '
        f'height="{box.height:.1f}" rx="{min(corner, 14):.1f}"/>',
        f'<text class="name" x="{box.x + _PAD:.1f}" y="{box.y + _LINE:.1f}">{escape(node.name)}</text>',
    ]
    for number, line in enumerate(node.lines, 2):
        out.append(
            f'<text class="told" x="{box.x + _PAD:.1f}" y="{box.y + _LINE * number:.1f}">{escape(line)}</text>'
        )
    return [*out, "</g>"]
