/**
 * What happened to a series, can it be trusted, has it changed? One card for each selected series: last value
 * with age and quality, the newest window's revision, and its windows or readings as a chart.
 */
import type { JSX } from "preact";
import { Empty, Panel, Skeleton } from "../components/panel";
import { Value } from "../components/value";
import { ChartFigure } from "../chart/figure";
import type { ChartSettings } from "../chart/plot";
import { age, quantity } from "../model/number";
import { isSuspect, qualityText } from "../model/quality";
import { moment, utc } from "../model/time";
import { description, loadSeries, seriesTracks, shown, stream } from "../state/session";
import { latestOf, now, overview, zone } from "../state/store";
import { selected, show, toggleSeries, view } from "../state/view";
import { focusSearch } from "./search";

const SETTINGS: ChartSettings = { lines: [{ name: "mean", colour: 1 }], band: [1, 2], zero: false, labels: false };
const NAMES = ["mean", "min", "max"] as const;
const INTERVAL_DEFAULT_S = 60;

export function SeriesPanel(): JSX.Element | null {
  if (overview.value === null) return null;
  const keys = selected.value;
  const raw = view.value.resolution === "raw" || stream.value === null;
  return (
    <Panel
      id="series"
      title="Series"
      class="series"
      note={
        keys.length > 0 ? (
          <div class="segments" role="group" aria-label="Resolution">
            <button type="button" aria-pressed={!raw} disabled={stream.value === null} onClick={() => show({ resolution: "windows" })}>
              windows
            </button>
            <button type="button" aria-pressed={raw} onClick={() => show({ resolution: "raw" })}>
              raw
            </button>
          </div>
        ) : null
      }
    >
      {keys.length === 0 ? (
        <Empty>
          <p>
            No series selected. Search by key, device or place with <kbd>/</kbd>; Enter shows a series here.
          </p>
          <button type="button" onClick={focusSearch}>
            Search series
          </button>
        </Empty>
      ) : (
        <div class="series-cards">
          {keys.map((key) => (
            <SeriesCard key={key} series={key} raw={raw} />
          ))}
        </div>
      )}
    </Panel>
  );
}

function SeriesCard({ series, raw }: { series: string; raw: boolean }): JSX.Element {
  const entry = description(series).value;
  const last = latestOf(series).value ?? entry?.last ?? null;
  const tracks = seriesTracks(series);
  const track = raw ? tracks.raw : tracks.windows;
  void track.version.value;
  const unit = entry?.unit ?? track.unit.value ?? null;
  const age_s = last === null ? null : (now.value - last.time_ms) / 1000;
  const told = overview.value?.stale?.some((other) => other.key === series) ?? false;
  const stale = told || (age_s !== null && age_s > 3 * (entry?.interval_s ?? INTERVAL_DEFAULT_S));
  const prefix = track.prefix.value ?? undefined;
  const newest = tracks.windows.lastBefore(shown.value.to);
  const about = entry ? [entry.medium, entry.quantity, entry.place, entry.device, entry.owner].filter(Boolean).join(" · ") : "";
  return (
    <article class="series-card" aria-label={series}>
      <header class="series-head">
        <h3 title={series}>{series}</h3>
        <span class="series-resolution muted">{track.resolution.value || (raw ? "raw" : "windows")}</span>
        <button type="button" class="quiet" aria-label={`Remove ${series}`} onClick={() => toggleSeries(series)}>
          ×
        </button>
      </header>
      <p class="series-about muted" title={about}>
        {about}
      </p>
      {entry === undefined ? <Skeleton lines={1} /> : null}
      {entry === null && last === null ? <p class="muted">No series of this key is in the catalogue.</p> : null}
      <dl class="series-facts">
        <div class="series-last">
          <dt>last</dt>
          <dd>
            <Value text={quantity(last?.value, unit, 4, prefix)} raw={last?.value} stale={stale} size="medium" {...(last ? { title: timesText(last.time_ms, last.arrived_ms) } : {})} />
          </dd>
        </div>
        <div>
          <dt>measured</dt>
          <dd title={last ? timesText(last.time_ms, last.arrived_ms) : undefined}>{last ? moment(last.time_ms, now.value, zone.value) : "—"}</dd>
        </div>
        <div>
          <dt>age</dt>
          <dd>{age(age_s)}</dd>
        </div>
        <div>
          <dt>quality</dt>
          <dd class={last && isSuspect(last.quality) ? "word-abnormal" : ""}>{last ? qualityText(last.quality) : "—"}</dd>
        </div>
        {newest !== null ? (
          <div>
            <dt>revision</dt>
            <dd>{newest.revision > 0 ? `↻ ${newest.revision}` : newest.revision}</dd>
          </div>
        ) : null}
      </dl>
      <ChartFigure
        key={raw ? "raw" : "windows"}
        title={series}
        track={track}
        settings={SETTINGS}
        names={NAMES}
        digits={4}
        counted="count"
        reload={() => void loadSeries(series)}
        empty={<Empty>{raw ? "No reading in this time." : "No closed window in this time; raw readings may be there already."}</Empty>}
      />
    </article>
  );
}

function timesText(time_ms: number, arrived_ms: number | null): string {
  return `measured ${utc(time_ms)}, arrived ${arrived_ms === null ? "—" : utc(arrived_ms)}`;
}
