/** What charts draw beside the lines: gaps as hatching, suspect spans, the start of the node, labels, revisions. */
import type uPlot from "uplot";
import type { Plot } from "../state/tracks";
import type { Theme } from "./theme";

const ratio = (): number => devicePixelRatio || 1;

function hatch(context: CanvasRenderingContext2D, colour: string, spacing: number): CanvasPattern | null {
  const size = Math.max(2, Math.round(spacing * ratio()));
  const tile = document.createElement("canvas");
  tile.width = tile.height = size;
  const pen = tile.getContext("2d");
  if (!pen) return null;
  pen.strokeStyle = colour;
  pen.lineWidth = ratio();
  for (const shift of [-size, 0, size]) {
    pen.moveTo(shift, size);
    pen.lineTo(shift + size, 0);
  }
  pen.stroke();
  return context.createPattern(tile, "repeat");
}

function span(chart: uPlot, from: number, to: number): [number, number] | null {
  const { left, width } = chart.bbox;
  const a = Math.max(left, chart.valToPos(from, "x", true));
  const b = Math.min(left + width, chart.valToPos(to, "x", true));
  return b > a ? [a, b] : null;
}

/** Gaps hatched and named where there is room; suspect spans dotted more densely. */
export function paintSpans(chart: uPlot, plot: Plot, theme: Theme, started_ms: number | null): void {
  const { ctx, bbox } = chart;
  ctx.save();
  const paint = (spans: readonly [number, number][], spacing: number, word: string): void => {
    if (spans.length === 0) return;
    const pattern = hatch(ctx, spacing < 8 ? `${theme.border}90` : theme.grid, spacing);
    for (const [from, to] of spans) {
      const at = span(chart, from, to);
      if (!at || !pattern) continue;
      ctx.fillStyle = pattern;
      ctx.fillRect(at[0], bbox.top, Math.max(ratio(), at[1] - at[0]), bbox.height);
      label(ctx, word, (at[0] + at[1]) / 2, bbox.top + bbox.height / 2, theme, at[1] - at[0]);
    }
  };
  paint(plot.suspect, 4, "suspect");
  paint(plot.partial, 6, "partial");
  paint(plot.gaps, 8, "no data");
  if (started_ms !== null) {
    const x = chart.valToPos(started_ms, "x", true);
    if (x > bbox.left + 1 && x < bbox.left + bbox.width - 1) {
      ctx.strokeStyle = theme.muted;
      ctx.lineWidth = ratio();
      ctx.setLineDash([2 * ratio(), 3 * ratio()]);
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
  }
  ctx.restore();
}

function label(ctx: CanvasRenderingContext2D, text: string, x: number, y: number, theme: Theme, room: number): void {
  ctx.font = scaled(theme.font);
  ctx.textAlign = "center";
  ctx.textBaseline = "middle";
  const width = ctx.measureText(text).width + 8 * ratio();
  if (width > room) return;
  ctx.fillStyle = theme.panel;
  ctx.fillRect(x - width / 2, y - 9 * ratio(), width, 18 * ratio());
  ctx.fillStyle = theme.muted;
  ctx.fillText(text, x, y);
}

function scaled(font: string): string {
  return font.replace(/^(\d+)px/, (_, size: string) => `${Number(size) * ratio()}px`);
}

/** The zero line, stronger than the grid. */
export function paintZero(chart: uPlot, theme: Theme): void {
  const { ctx, bbox } = chart;
  const y = Math.round(chart.valToPos(0, "y", true));
  if (y < bbox.top || y > bbox.top + bbox.height) return;
  ctx.save();
  ctx.strokeStyle = theme.border;
  ctx.lineWidth = ratio();
  ctx.beginPath();
  ctx.moveTo(bbox.left, y + 0.5);
  ctx.lineTo(bbox.left + bbox.width, y + 0.5);
  ctx.stroke();
  ctx.restore();
}

const LABEL_HEIGHT = 15;

/** Each line's name right of its newest point; names keep clear of each other. */
export function paintLabels(chart: uPlot, names: readonly string[], colours: readonly string[], theme: Theme): void {
  const { ctx, bbox } = chart;
  const found: { name: string; colour: string; y: number }[] = [];
  names.forEach((name, index) => {
    const column = chart.data[index + 1];
    for (let at = (column?.length ?? 0) - 1; column && at >= 0; at -= 1) {
      const value = column[at];
      if (value == null) continue;
      found.push({ name, colour: colours[index] ?? theme.ink, y: chart.valToPos(value, "y", true) });
      break;
    }
  });
  found.sort((a, b) => a.y - b.y);
  const height = LABEL_HEIGHT * ratio();
  const top = bbox.top + height / 2;
  const bottom = bbox.top + bbox.height - height / 2;
  found.forEach((item, index) => {
    item.y = Math.max(item.y, top + index * height, index > 0 ? found[index - 1]!.y + height : top);
  });
  for (let index = found.length - 1; index >= 0; index -= 1) {
    const below = found[index + 1];
    found[index]!.y = Math.min(found[index]!.y, below ? below.y - height : bottom);
  }
  ctx.save();
  ctx.font = scaled(theme.font);
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  for (const { name, colour, y } of found) {
    ctx.fillStyle = colour;
    ctx.fillText(name, bbox.left + bbox.width + 6 * ratio(), y);
  }
  ctx.restore();
}

/** ↻ at the foot of each window that came out differently a second time. */
export function paintRevisions(chart: uPlot, plot: Plot, theme: Theme): void {
  const { ctx, bbox } = chart;
  ctx.save();
  ctx.font = scaled(theme.font);
  ctx.textAlign = "center";
  ctx.textBaseline = "alphabetic";
  ctx.fillStyle = theme.ink;
  let free = -Infinity;
  plot.rows.forEach((row, index) => {
    if (!row || row.revision === 0) return;
    const x = chart.valToPos(plot.x[index]!, "x", true);
    if (x < bbox.left || x > bbox.left + bbox.width || x < free) return;
    ctx.fillText("↻", x, bbox.top + bbox.height - 3 * ratio());
    free = x + 11 * ratio();
  });
  ctx.restore();
}
