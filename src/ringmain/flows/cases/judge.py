"""A case from end to end: read, planned, played in every manner, compared.

The configuration is read by whoever calls (`cli/test.py`): flows do not know the node's file.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa

from ringmain.flows.cases.compare import (
    Difference,
    Kind,
    compare,
    expected_rows,
    first_change,
)
from ringmain.flows.cases.layout import Case, CaseError
from ringmain.flows.cases.play import AS_RECORDED, MANNERS, OTHER_WORLDS, Played, play
from ringmain.flows.cases.tables import Recorded, csv_text, keyed, read_input, read_texts
from ringmain.flows.chain import StepFailureError
from ringmain.flows.flow import FlowPlan, FlowSettings, stored
from ringmain.flows.graph import PlannedFlows, plan_flows
from ringmain.flows.step import Shape
from ringmain.model.catalogue import Catalogue
from ringmain.model.series_attributes import SeriesAttributes

_PACKAGE = str(Path(__file__).parents[2])


@dataclass(frozen=True, slots=True)
class Configured:
    """What a case takes of a node's configuration."""

    flows: Mapping[str, FlowSettings]
    directory: Path
    zone: ZoneInfo
    series: Sequence[tuple[str, SeriesAttributes]] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """How a case went. `problem`: why it could not be run or what of it cannot be trusted."""

    case: Case
    rows_in: int = 0
    rows_out: int = 0
    differences: tuple[Difference, ...] = ()
    problem: str | None = None
    changed: tuple[Path, ...] = ()
    """Files that `update` wrote."""
    counts: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    """By step that runs code of the user's: a digest of what it gave, in hexadecimal."""

    @property
    def passed(self) -> bool:
        """Whether everything is as expected."""
        return self.problem is None and not self.differences


def judge(case: Case, configured: Configured, *, update: bool = False) -> Result:
    """Run a case. `update` writes what comes out as what is expected. Raises CaseError."""
    planned, recorded = _planned(case, configured)
    tail_ns, tick_ns = case.settings.durations(case.directory)
    rows_in = sum(arrival.rows.num_rows for arrival in recorded.arrivals)
    try:
        played = play(recorded, planned.plans, tail_ns=tail_ns, tick_ns=tick_ns)
        problem = _unsteady(played, recorded, planned.plans, tail_ns, tick_ns)
    except StepFailureError as error:
        return Result(case, rows_in, problem=f"{error}\n{_trace(error.cause)}".rstrip())
    except CaseError:
        raise
    except Exception as error:  # a user's module that cannot be loaded raises what it likes
        return Result(case, rows_in, problem=f"{type(error).__name__}: {error}\n{_trace(error)}".rstrip())
    if problem is not None:
        return Result(case, rows_in, problem=problem)
    shown = {name: _shown(table, recorded.catalogue) for name, table in played.outputs.items()}
    rows_out = sum(table.num_rows for table in shown.values())
    given = {name: digest.hex() for name, digest in played.given.items()}
    if update:
        return Result(
            case,
            rows_in,
            rows_out,
            changed=_updated(case, planned.plans, shown),
            counts=played.counts,
            given=given,
        )
    differences = _differences(case, planned.plans, shown)
    return Result(case, rows_in, rows_out, tuple(differences), counts=played.counts, given=given)


def digests(case: Case, configured: Configured) -> Mapping[str, str]:
    """`Result.given` of a case, to be compared with that of another process. Raises CaseError, StepFailureError."""
    planned, recorded = _planned(case, configured)
    tail_ns, tick_ns = case.settings.durations(case.directory)
    played = play(recorded, planned.plans, tail_ns=tail_ns, tick_ns=tick_ns)
    return {name: digest.hex() for name, digest in played.given.items()}


def _unsteady(
    played: Played, recorded: Recorded, plans: Sequence[FlowPlan], tail_ns: int, tick_ns: int
) -> str | None:
    """What is other when the same input is played in another manner; None: nothing. Raises StepFailureError."""
    for manner in MANNERS:
        again = play(recorded, plans, tail_ns=tail_ns, tick_ns=tick_ns, manner=manner)
        for stream, table in played.outputs.items():
            change = first_change(table, again.outputs[stream])
            if change is not None:
                return (
                    f"{stream}: other results {AS_RECORDED.name} and with {manner.name}: {change}; "
                    "a step depends on something else than its input"
                )
    if not played.given:
        return None
    for manner in OTHER_WORLDS:
        again = play(recorded, plans, tail_ns=tail_ns, tick_ns=tick_ns, manner=manner)
        for name, digest in played.given.items():
            if again.given[name] != digest:
                return (
                    f"{name} gives other results with {manner.name}: its function has to depend on its rows and its "
                    "state alone"
                )
    return None


def _trace(cause: BaseException) -> str:
    """Where in the user's code a step failed, or else in whatever it called."""
    frames = traceback.extract_tb(cause.__traceback__)
    own = [one for one in frames if "site-packages" not in one.filename and _PACKAGE not in one.filename]
    own = [one for one in own if one.filename.endswith(".py")]
    return "".join(traceback.format_list(own[-1:] or frames[-1:])).rstrip()


def _planned(case: Case, configured: Configured) -> tuple[PlannedFlows, Recorded]:
    flows = dict(configured.flows)
    for name in case.settings.flows or ():
        if name not in flows:
            raise CaseError(f"{case.directory}: no flow {name!r} in {case.config}; it has {', '.join(flows)}")
    chosen = {
        name: flow
        for name, flow in flows.items()
        if case.settings.flows is None or name in case.settings.flows
    }
    if not chosen:
        raise CaseError(f"{case.config}: expected at least one [flows.NAME], found none")
    whole = plan_flows(flows, configured.directory, configured.zone)
    known = {name: stored(shape)[1] for plan in whole.plans for name, shape in plan.streams.items()}
    recorded = read_input(case, configured.series, known)
    written = {stream for plan in whole.plans if plan.name in chosen for stream in plan.streams}
    schemas = {name: Shape(kind, schema) for name, (kind, schema) in recorded.schemas.items()}
    clash = sorted(written & set(schemas))
    if clash:
        raise CaseError(f"{case.directory}: input for {clash[0]!r}, which a flow of the case writes")
    for plan in whole.plans:
        if plan.name not in chosen:
            schemas |= plan.streams
    planned = plan_flows(chosen, configured.directory, configured.zone, schemas)
    if planned.problems:
        lines = [f"{case.config}: flows.{one.flow}.{one.key}: {one.message}" for one in planned.problems]
        raise CaseError("\n".join(lines))
    return planned, recorded


def _shown(table: pa.Table, catalogue: Catalogue) -> pa.Table:
    """Rows as people see them."""
    batches = [keyed(batch, catalogue) for batch in table.combine_chunks().to_batches()]
    if not batches:
        batches = [keyed(pa.RecordBatch.from_pylist([], table.schema), catalogue)]
    decoded = [
        pa.RecordBatch.from_arrays(
            [
                column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                for column in batch.columns
            ],
            names=batch.schema.names,
        )
        for batch in batches
    ]
    return pa.Table.from_batches(decoded)


def _files(case: Case, plans: Sequence[FlowPlan], streams: Sequence[str]) -> dict[str, Path]:
    chosen = [name for name in streams if case.settings.streams is None or name in case.settings.streams]
    for name in case.settings.streams or ():
        if name not in streams:
            raise CaseError(
                f"{case.directory}: no flow of the case writes {name!r} (`streams` of case.toml); "
                f"they write {', '.join(streams)}"
            )
    return case.expectations(chosen, [plan.settings.to for plan in plans])


def _differences(case: Case, plans: Sequence[FlowPlan], shown: Mapping[str, pa.Table]) -> list[Difference]:
    files = _files(case, plans, list(shown))
    unused = case.unused(files)
    if unused:
        raise CaseError(
            f"{unused[0]}: no flow of the case writes such a stream; they write {', '.join(shown)}"
        )
    if not any(path.is_file() for path in files.values()):
        raise CaseError(
            f"{case.directory}: expected a file expected.csv, found none: write it by hand, or let "
            "`ringmain test --update` write what comes out now, and read it"
        )
    differences: list[Difference] = []
    for stream, path in files.items():
        table = shown[stream]
        if path.is_file():
            expected = expected_rows(read_texts(path), table.schema, stream)
            differences += compare(stream, table, expected, case.settings.tolerance)
        elif table.num_rows:
            differences.append(
                Difference(Kind.UNEXPECTED, stream, f"{table.num_rows} rows, and no file {path.name}")
            )
    return differences


def _updated(case: Case, plans: Sequence[FlowPlan], shown: Mapping[str, pa.Table]) -> tuple[Path, ...]:
    files = _files(case, plans, list(shown))
    changed: list[Path] = []
    for stream, path in files.items():
        table = shown[stream]
        if not table.num_rows and not path.is_file() and len(files) > 1:
            continue
        if path.is_file():
            names = read_texts(path).rows.column_names
            kept = [name for name in names if name in table.column_names]
            table = table.select(kept or table.column_names)
        text = csv_text(table)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            changed.append(path)
    return tuple(changed)
