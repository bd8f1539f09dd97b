/**
 * One chart on a canvas: uPlot with the portal's rules (utility time on the axis, held vertical range, broken
 * lines at gaps, hatching, direct labels, one synchronised cursor).
 */
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { prefixFor, significant, type Prefix } from "../model/number";
import { tickLabels, ticks } from "../model/time";
import type { Plot, Track } from "../state/tracks";
import { forget, requestDraw, type Drawable } from "./loop";
import { paintLabels, paintRevisions, paintSpans, paintZero } from "./paint";
import { extent, HeldRange } from "./scale";
import type { Theme } from "./theme";

export interface Line {
  name: string;
  /** 1 to 5: which of the series colours. */
  colour: number;
  dash?: readonly number[];
}

export interface ChartSettings {
  /** The first columns of the track, in order. */
  lines: readonly Line[];
  /** Columns of the band's lower and upper edge, drawn behind the first line. */
  band: readonly [number, number] | null;
  zero: boolean;
  labels: boolean;
}

/** What a chart reads each time it draws. */
export interface ChartInput {
  from: number;
  to: number;
  now: number;
  zone: string;
  unit: string | null;
  started_ms: number | null;
  theme: Theme;
}

export interface ChartEvents {
  /** The cursor is on the point of this time, or gone. */
  cursor(time: number | null): void;
  select(from: number, to: number): void;
}

const Y_AXIS_PX = 52;
const LABELS_PX = 76;
const LABEL_EVERY_PX = 84;

/** "#rrggbb" as a tint for areas. */
const translucent = (colour: string): string => (/^#[0-9a-f]{6}$/i.test(colour) ? `${colour}2e` : colour);

export class TrackChart implements Drawable {
  visible = true;
  plot: Plot = { x: [], y: [], rows: [], gaps: [], suspect: [], partial: [] };
  prefix: Prefix | undefined;
  private held: number | null = null;
  private measured = "";
  private fits = 0;
  private readonly range = new HeldRange();
  private bounds: [number, number] = [0, 1];
  private chart: uPlot | null = null;
  private drawn: Theme | null = null;
  private readonly sizes: ResizeObserver;
  private readonly sight: IntersectionObserver;

  constructor(
    private readonly place: HTMLElement,
    private readonly track: Track,
    private readonly settings: ChartSettings,
    private readonly input: () => ChartInput,
    private readonly events: ChartEvents,
  ) {
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(place);
    this.sight = new IntersectionObserver((entries) => {
      this.visible = entries[entries.length - 1]!.isIntersecting;
      if (this.visible) requestDraw(this);
    });
    this.sight.observe(place);
    requestDraw(this);
  }

  /** Something changed: draw when there is time. */
  refresh(): void {
    requestDraw(this);
  }

  fit(): void {
    this.range.fit();
    this.fits += 1;
    this.refresh();
  }

  destroy(): void {
    forget(this);
    this.sizes.disconnect();
    this.sight.disconnect();
    this.chart?.destroy();
    this.chart = null;
  }

  /** Bring points, vertical range and unit prefix up to date without drawing; does nothing when they are. */
  measure(): void {
    const input = this.input();
    const state = `${this.track.version.peek()} ${input.from} ${input.to} ${input.unit} ${this.fits}`;
    if (state === this.measured) return;
    this.measured = state;
    this.plot = this.track.plot(input.from, input.to);
    const [low, high] = extent(this.plot.y);
    this.bounds = this.range.update(low, high, input.now, this.settings.zero);
    if (low !== null && high !== null) {
      // Half: 1,500 W read better as such than as 1.5 kW beside 640 W.
      this.prefix = prefixFor(input.unit, Math.max(Math.abs(low), Math.abs(high)) / 2, this.prefix);
      if (this.track.prefix.peek() !== this.prefix) this.track.prefix.value = this.prefix;
    }
  }

  draw(): void {
    const { clientWidth, clientHeight } = this.place;
    if (clientWidth < 40 || clientHeight < 40) return;
    const input = this.input();
    this.measure();
    const data = [this.plot.x, ...this.plot.y] as uPlot.AlignedData;
    if (this.chart === null || this.drawn !== input.theme) {
      this.chart?.destroy();
      this.drawn = input.theme;
      this.chart = new uPlot(this.options(input.theme, clientWidth, clientHeight), data, this.place);
    } else {
      this.chart.setData(data, true);
    }
    if (this.held !== null) this.placeCursor(false);
  }

  /** Hold the cursor at a point's time (here and, synchronised, in every chart); null takes it away. */
  hold(time: number | null): void {
    this.held = time;
    this.placeCursor(true);
  }

  private placeCursor(publish: boolean): void {
    const chart = this.chart;
    if (chart === null) return;
    // The third parameter, missing in the type, hands the cursor on to the other charts.
    const set = chart.setCursor as (position: { left: number; top: number }, fire: boolean, publish: boolean) => void;
    if (this.held === null) set({ left: -10, top: -10 }, true, publish);
    else set({ left: chart.valToPos(this.held, "x"), top: chart.over.clientHeight / 2 }, true, publish);
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.place;
    if (this.chart && (this.chart.width !== width || this.chart.height !== height) && width >= 40 && height >= 40) {
      this.chart.setSize({ width, height });
    } else if (!this.chart) {
      requestDraw(this);
    }
  }

  private options(theme: Theme, width: number, height: number): uPlot.Options {
    const { lines, band, labels, zero } = this.settings;
    const colour = (line: Line): string => theme.series[line.colour - 1] ?? theme.ink;
    const axis = { stroke: theme.muted, font: theme.font, grid: { stroke: theme.grid, width: 1 }, ticks: { show: false } };
    const hidden: uPlot.Series = { stroke: "transparent", width: 0, points: { show: false }, spanGaps: false };
    const first = lines[0] ? colour(lines[0]) : theme.ink;
    return {
      width,
      height,
      padding: [8, labels ? LABELS_PX : 12, 0, 0],
      legend: { show: false },
      focus: { alpha: 1 },
      cursor: {
        y: false,
        points: { one: true, size: 7, fill: theme.panel, stroke: theme.ink, width: 2 },
        sync: { key: "ringmain", setSeries: false, scales: ["x", null] },
        drag: { x: true, y: false, setScale: false },
      },
      scales: {
        x: { time: false, range: () => [this.input().from, this.input().to] },
        y: { range: () => this.bounds },
      },
      axes: [
        {
          ...axis,
          size: (_chart, values) => (values?.some((value) => value?.includes("\n")) ? 36 : 22),
          gap: 6,
          lineGap: 1.1,
          splits: (chart, _axis, from, to) => ticks(from, to, Math.max(2, Math.floor(chart.over.clientWidth / LABEL_EVERY_PX)), this.input().zone),
          values: (_chart, splits) => tickLabels(splits, this.input().zone),
        },
        {
          ...axis,
          size: Y_AXIS_PX,
          gap: 6,
          space: (_chart, _axis, _low, _high, height) => Math.max(24, height / 8),
          values: (_chart, splits) => this.tickValues(splits),
        },
      ],
      series: [
        {},
        ...lines.map((line): uPlot.Series => ({
          label: line.name,
          stroke: colour(line),
          width: 1.5,
          spanGaps: false,
          ...(line.dash ? { dash: [...line.dash] } : {}),
          points: { show: (chart, _index, from, to) => this.isSparse(chart, from, to), size: 5, fill: colour(line), stroke: colour(line) },
        })),
        ...(band ? [hidden, hidden] : []),
      ],
      ...(band ? { bands: [{ series: [band[1] + 1, band[0] + 1] as [number, number], fill: translucent(first) }] } : {}),
      hooks: {
        drawAxes: [
          (chart) => {
            paintSpans(chart, this.plot, theme, this.input().started_ms);
            if (zero) paintZero(chart, theme);
          },
        ],
        draw: [
          (chart) => {
            if (labels) paintLabels(chart, lines.map((line) => line.name), lines.map(colour), theme);
            paintRevisions(chart, this.plot, theme);
          },
        ],
        setCursor: [
          (chart) => {
            const { left = -1, idx, event } = chart.cursor;
            if (event) this.held = null;
            this.events.cursor(left >= 0 && idx != null ? (this.plot.x[idx] ?? null) : null);
          },
        ],
        setSelect: [
          (chart) => {
            const { left, width: wide } = chart.select;
            if (wide < 4) return;
            const from = chart.posToVal(left, "x");
            const to = chart.posToVal(left + wide, "x");
            chart.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            this.events.select(from, to);
          },
        ],
      },
    };
  }

  /** Points are marked while there are few: a line through two readings says less than the readings. */
  private isSparse(chart: uPlot, from: number, to: number): boolean {
    return to - from < chart.over.clientWidth / 16;
  }

  /** Labels of the vertical axis in the chart's fixed prefix, with as many digits as tell the steps apart. */
  private tickValues(splits: number[]): string[] {
    if (this.prefix === undefined) return splits.map(() => "");
    const { factor } = this.prefix;
    const step = splits.length > 1 ? Math.abs(splits[1]! - splits[0]!) / factor : 1;
    return splits.map((value) => {
      const scaled = value / factor;
      if (scaled === 0) return "0";
      const places = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
      const digits = Math.max(1, Math.floor(Math.log10(Math.abs(scaled)) + 1e-9) + 1 + places);
      return significant(scaled, digits);
    });
  }
}
