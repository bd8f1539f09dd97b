/**
 * A chart as a focusable figure: drawing, a line that reads out the point under the cursor (or the newest),
 * a summary for those who do not see the drawing, keyboard, and the same data as a table.
 */
import { useSignal } from "@preact/signals";
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useId, useRef } from "preact/hooks";
import { integer, NO_PREFIX, significant, unitText, type Prefix } from "../model/number";
import { clock, utc } from "../model/time";
import { Failure } from "../components/panel";
import { shown } from "../state/session";
import { nodeNow, overview, zone } from "../state/store";
import type { Plot, Row, Track } from "../state/tracks";
import { show, zoom } from "../state/view";
import { fitRequests } from "./fit";
import { TrackChart, type ChartSettings } from "./plot";
import { theme } from "./theme";

interface FigureProps {
  title: string;
  track: Track;
  settings: ChartSettings;
  /** Names of the values in the read-out and the table, in column order. */
  names: readonly string[];
  digits: number;
  /** What a row's `count` counts. */
  counted: string;
  reload: () => void;
  empty: ComponentChildren;
  tall?: boolean;
}

export function ChartFigure(props: FigureProps): JSX.Element {
  const { title, track, settings, names, digits, counted, reload, empty, tall } = props;
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<TrackChart | null>(null);
  const cursor = useSignal<number | null>(null);
  const byKey = useSignal(false);
  const table = useSignal(false);
  const hint = useId();

  useEffect(() => {
    const made = new TrackChart(
      place.current!,
      track,
      settings,
      () => ({
        from: shown.peek().from,
        to: shown.peek().to,
        now: nodeNow(),
        zone: zone.peek(),
        unit: track.unit.peek(),
        started_ms: overview.peek()?.node.started_ms ?? null,
        theme: theme.peek(),
      }),
      {
        cursor: (time) => {
          cursor.value = time;
        },
        select: (from, to) => show({ range: { kind: "fixed", from: Math.round(from), to: Math.round(to) } }),
      },
    );
    chart.current = made;
    const stops = [
      track.version.subscribe(() => made.refresh()),
      shown.subscribe(() => made.refresh()),
      theme.subscribe(() => made.refresh()),
      zone.subscribe(() => made.refresh()),
      fitRequests.subscribe(() => made.fit()),
    ];
    return () => {
      for (const stop of stops) stop();
      made.destroy();
      chart.current = null;
    };
  }, [track, settings]);

  void track.version.value;
  const { from, to } = shown.value;
  const load = track.load.value;
  const unit = track.unit.value;
  chart.current?.measure();
  const plot = chart.current?.plot ?? track.plot(from, to);
  const prefix = chart.current?.prefix ?? NO_PREFIX;
  const newest = lastRow(plot.rows, plot.y);
  const found = cursor.value === null ? -1 : plot.x.indexOf(cursor.value);
  const at = found < 0 ? newest : (plot.rows[found] ?? null);
  const points = plot.rows.filter((row) => row !== null).length;

  const move = (step: number | "first" | "last"): void => {
    const rows = plot.rows;
    if (points === 0) return;
    let index = found < 0 ? rows.length : found;
    if (step === "first") index = -1;
    if (step === "last") index = rows.length;
    const way = step === "first" ? 1 : step === "last" ? -1 : Math.sign(step);
    for (let left = typeof step === "number" ? Math.abs(step) : 1; left > 0; ) {
      index += way;
      if (index < 0 || index >= rows.length) return;
      if (rows[index] !== null) left -= 1;
    }
    byKey.value = true;
    chart.current?.hold(plot.x[index]!);
  };

  const zoomBy = (factor: number): void => {
    const centre = cursor.value ?? (from + to) / 2;
    show({ range: zoom(factor, centre, from, to, nodeNow()) });
  };

  const keys: Record<string, () => void> = {
    ArrowLeft: () => move(-1),
    ArrowRight: () => move(1),
    PageUp: () => move(-10),
    PageDown: () => move(10),
    Home: () => move("first"),
    End: () => move("last"),
    "+": () => zoomBy(0.5),
    "=": () => zoomBy(0.5),
    "-": () => zoomBy(2),
    "\u2212": () => zoomBy(2),
    t: () => (table.value = !table.value),
    f: () => chart.current?.fit(),
    Escape: () => {
      chart.current?.hold(null);
      byKey.value = false;
    },
  };
  const onKeyDown = (event: KeyboardEvent): void => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const action = event.target === event.currentTarget ? keys[event.key] : undefined;
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    action();
  };

  const readout = at ? <Readout row={at} names={names} unit={unit} prefix={prefix} digits={digits} counted={counted} newest={found < 0} /> : null;
  return (
    <figure
      class={`chart${tall ? " chart-tall" : ""}`}
      tabIndex={0}
      role="group"
      aria-roledescription="chart"
      aria-label={summary(title, names, plot, unit, digits, from, to)}
      aria-describedby={hint}
      onKeyDown={onKeyDown}
      onBlur={() => (byKey.value = false)}
    >
      <div class="plot" ref={place} aria-hidden="true" />
      {points === 0 && load.state !== "failed" ? (
        <div class="chart-over">{load.state === "ready" ? empty : load.state === "loading" ? <span class="muted">loading</span> : empty}</div>
      ) : null}
      {load.state === "failed" ? (
        <Failure what={load.message} since_ms={load.since_ms} reference={load.reference} retry={reload} />
      ) : null}
      <figcaption class="readout" aria-live={byKey.value ? "polite" : "off"}>
        {readout}
      </figcaption>
      <span id={hint} class="sr-only">
        Arrow keys move the cursor, plus and minus zoom, t shows a table, f fits.
      </span>
      {table.value ? <DataTable title={title} rows={plot.rows} names={names} unit={unit} prefix={prefix} digits={digits + 1} counted={counted} /> : null}
    </figure>
  );
}

/** The newest row that the chart draws, or the newest at all when it draws none. */
function lastRow(rows: readonly (Row | null)[], columns: readonly (readonly (number | null)[])[]): Row | null {
  let any: Row | null = null;
  for (let index = rows.length - 1; index >= 0; index -= 1) {
    const row = rows[index];
    if (!row) continue;
    any ??= row;
    if (columns.some((column) => column[index] !== null)) return row;
  }
  return any;
}

const isWindow = (row: Row): boolean => row.end > row.start;

function spanText(row: Row): string {
  const seconds = row.start % 60_000 !== 0 || row.end % 60_000 !== 0;
  const begin = clock(row.start, zone.value, seconds);
  return isWindow(row) ? `${begin}–${clock(row.end, zone.value, seconds)}` : begin;
}

interface ReadoutProps {
  row: Row;
  names: readonly string[];
  unit: string | null;
  prefix: Prefix;
  digits: number;
  counted: string;
  newest: boolean;
}

function Readout({ row, names, unit, prefix, digits, counted, newest }: ReadoutProps): JSX.Element {
  const text = unitText(unit, prefix);
  // A single raw reading: mean, least and greatest are one and the same.
  const single = !isWindow(row) && row.count === 1;
  return (
    <>
      <span class="readout-time">
        {newest ? "newest " : ""}
        {spanText(row)}
        {newest ? null : <span class="muted"> {utc(row.start)}</span>}
      </span>
      {(single ? ["value"] : names).map((name, column) => (
        <span key={name} class="readout-item">
          <span class="muted">{name}</span> {significant(scaled(row.values[column], prefix), digits)}&nbsp;{text}
        </span>
      ))}
      {row.count !== null && !single ? (
        <span class="readout-item">
          <span class="muted">{counted}</span> {integer(row.count)}
        </span>
      ) : null}
      {row.revision > 0 ? (
        <span class="readout-item">
          ↻&nbsp;revision {row.revision}
          {row.replaced !== null ? `, was ${significant(scaled(row.replaced, prefix), digits)}` : ""}
        </span>
      ) : null}
    </>
  );
}

const scaled = (value: number | null | undefined, prefix: Prefix): number | null => (value == null ? null : value / prefix.factor);

function summary(
  title: string,
  names: readonly string[],
  { rows, y }: Plot,
  unit: string | null,
  digits: number,
  from: number,
  to: number,
): string {
  const minutes = Math.round((to - from) / 60_000);
  const span = minutes > 0 ? `${minutes} min` : `${Math.round((to - from) / 1000)} s`;
  const lead = `${title}, ${span} until ${clock(to, zone.value, false)}`;
  const last = lastRow(rows, y);
  if (!last) return `${lead}: no data`;
  const parts = names.map((name, column) => {
    const values = rows.map((row) => row?.values[column] ?? null).filter((value) => value !== null);
    if (values.length === 0) return `${name} missing`;
    const text = unitText(unit);
    const low = significant(Math.min(...values), digits);
    const high = significant(Math.max(...values), digits);
    return `${name} from ${low} to ${high} ${text}, newest ${significant(last.values[column], digits)} ${text}`;
  });
  return `${lead}: ${parts.join("; ")}`;
}

interface TableProps extends Omit<ReadoutProps, "row" | "newest"> {
  title: string;
  rows: readonly (Row | null)[];
}

const TABLE_ROWS_MAX = 200;

function DataTable({ title, rows, names, unit, prefix, digits, counted }: TableProps): JSX.Element {
  const found = rows.filter((row) => row !== null).reverse();
  const text = unitText(unit, prefix);
  const revised = found.some((row) => row.revision > 0);
  return (
    <div class="chart-table" tabIndex={0} role="region" aria-label={`${title}: table`}>
      <table>
        <caption>
          {title}, newest first
          {found.length > TABLE_ROWS_MAX ? `: ${TABLE_ROWS_MAX} of ${integer(found.length)} rows` : ""}
        </caption>
        <thead>
          <tr>
            <th scope="col">time</th>
            {names.map((name) => (
              <th key={name} scope="col" class="number">
                {name}
                {text ? ` [${text}]` : ""}
              </th>
            ))}
            <th scope="col" class="number">
              {counted}
            </th>
            {revised ? (
              <th scope="col" class="number">
                revision
              </th>
            ) : null}
          </tr>
        </thead>
        <tbody>
          {found.slice(0, TABLE_ROWS_MAX).map((row) => (
            <tr key={row.start}>
              <th scope="row" title={utc(row.start)}>
                {spanText(row)}
              </th>
              {names.map((name, column) => (
                <td key={name} class="number" data-raw={row.values[column] ?? undefined}>
                  {significant(scaled(row.values[column], prefix), digits)}
                </td>
              ))}
              <td class="number">{integer(row.count)}</td>
              {revised ? <td class="number">{row.revision > 0 ? `↻ ${row.revision}` : "0"}</td> : null}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
