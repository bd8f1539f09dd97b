/**
 * Wall-clock time in the utility's zone, whatever the browser's zone is.
 *
 * `Intl` is the only source of offsets. Instants are ms since the epoch; a "wall" value is the local date
 * and time written as if it were UTC, in ms, which makes calendar arithmetic plain.
 */

const QUARTER_MS = 900_000;
const HOUR_MS = 3_600_000;
const DAY_MS = 86_400_000;
const CACHE_MAX = 4096;

const formats = new Map<string, Intl.DateTimeFormat>();
const offsets = new Map<string, number>();

function format(zone: string): Intl.DateTimeFormat {
  let found = formats.get(zone);
  if (!found) {
    found = new Intl.DateTimeFormat("en-GB", {
      timeZone: zone,
      hourCycle: "h23",
      year: "numeric",
      month: "2-digit",
      day: "2-digit",
      hour: "2-digit",
      minute: "2-digit",
      second: "2-digit",
    });
    formats.set(zone, found);
  }
  return found;
}

/** The zone if the browser knows it, else UTC (and the page then says UTC, never a wrong local time). */
export function knownZone(zone: string): string {
  try {
    format(zone);
    return zone;
  } catch {
    return "UTC";
  }
}

/** Offset of local time from UTC at an instant, in ms. Offsets change on quarter-hours only. */
export function offsetMs(instant: number, zone: string): number {
  const quarter = Math.floor(instant / QUARTER_MS);
  const key = `${zone} ${quarter}`;
  const cached = offsets.get(key);
  if (cached !== undefined) return cached;
  const at = quarter * QUARTER_MS;
  const parts: Record<string, number> = {};
  for (const part of format(zone).formatToParts(at)) {
    if (part.type !== "literal") parts[part.type] = Number(part.value);
  }
  const wall = Date.UTC(parts["year"]!, parts["month"]! - 1, parts["day"]!, parts["hour"]!, parts["minute"]!, parts["second"]!);
  if (offsets.size >= CACHE_MAX) offsets.clear();
  offsets.set(key, wall - at);
  return wall - at;
}

/** The instant at which local clocks show `wall`: the first of two, or the moment after a skipped hour began. */
export function instantOf(wall: number, zone: string): number {
  const before = offsetMs(wall - DAY_MS, zone);
  const after = offsetMs(wall + DAY_MS, zone);
  for (const offset of before === after ? [before] : [before, after]) {
    if (offsetMs(wall - offset, zone) === offset) return wall - offset;
  }
  return wall - before;
}

/** True when the local clock shows this time twice on this day (the hour that is repeated in autumn). */
export function isRepeated(instant: number, zone: string): boolean {
  const own = offsetMs(instant, zone);
  for (const probe of [instant - 6 * HOUR_MS, instant + 6 * HOUR_MS]) {
    const other = offsetMs(probe, zone);
    if (other !== own && offsetMs(instant + own - other, zone) === other) return true;
  }
  return false;
}

const two = (n: number): string => String(n).padStart(2, "0");

/** "+01:00", with U+2212 for west of Greenwich. */
export function offsetText(instant: number, zone: string): string {
  const offset = offsetMs(instant, zone);
  const minutes = Math.abs(offset) / 60_000;
  return `${offset < 0 ? "\u2212" : "+"}${two(Math.floor(minutes / 60))}:${two(Math.floor(minutes % 60))}`;
}

/** Local "14:05:09" (or without seconds); in a repeated hour the offset stands behind it. */
export function clock(instant: number, zone: string, seconds = true): string {
  const wall = new Date(instant + offsetMs(instant, zone));
  const text = `${two(wall.getUTCHours())}:${two(wall.getUTCMinutes())}${seconds ? `:${two(wall.getUTCSeconds())}` : ""}`;
  return isRepeated(instant, zone) ? `${text} ${offsetText(instant, zone)}` : text;
}

/** Local date as "2026-11-23". */
export function date(instant: number, zone: string): string {
  return new Date(instant + offsetMs(instant, zone)).toISOString().slice(0, 10);
}

/** Local date and time, the date only when it is not today's. */
export function moment(instant: number, now: number, zone: string): string {
  const day = date(instant, zone);
  return day === date(now, zone) ? clock(instant, zone) : `${day} ${clock(instant, zone)}`;
}

/** "2026-11-23T13:05:09.250Z" without zero fractions. */
export function utc(instant: number): string {
  return new Date(instant).toISOString().replace(/\.000Z$/, "Z");
}

/** Quarter-hours of the local day that holds `instant`: 96, or 92 and 100 on the days of a clock change. */
export function quarterHoursOfDay(instant: number, zone: string): number {
  const midnight = Math.floor((instant + offsetMs(instant, zone)) / DAY_MS) * DAY_MS;
  return (instantOf(midnight + DAY_MS, zone) - instantOf(midnight, zone)) / QUARTER_MS;
}

const STEPS_MS = [
  1, 2, 5, 10, 20, 50, 100, 200, 500,
  ...[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200].map((s) => s * 1000),
  ...[1, 2, 7, 14, 28, 91, 365].map((d) => d * DAY_MS),
];

/** Tick positions for an axis from `from` to `to` with room for about `count` labels, on round local times. */
export function ticks(from: number, to: number, count: number, zone: string): number[] {
  const least = (to - from) / Math.max(1, count);
  const step = STEPS_MS.find((candidate) => candidate >= least) ?? STEPS_MS[STEPS_MS.length - 1]!;
  const found: number[] = [];
  if (step >= DAY_MS) {
    const first = Math.ceil((from + offsetMs(from, zone)) / step) * step;
    for (let wall = first; ; wall += step) {
      const instant = instantOf(wall, zone);
      if (instant > to) return found;
      if (instant >= from) found.push(instant);
    }
  }
  // The first round local time from `instant` on; across a clock change both offsets propose one.
  const round = (instant: number): number => {
    const offset = offsetMs(instant, zone);
    const wall = Math.ceil((instant + offset) / step) * step;
    const after = offsetMs(wall - offset, zone);
    if (after === offset) return wall - offset;
    const proposed = [wall - offset, wall - after, (Math.floor((instant + after) / step) + 1) * step - after];
    const fit = proposed.filter((at) => at >= instant && (at + offsetMs(at, zone)) % step === 0);
    return fit.length > 0 ? Math.min(...fit) : wall - offset;
  };
  for (let instant = round(from); instant <= to; instant = round(instant + 1)) found.push(instant);
  return found;
}

/** Axis labels for tick positions: times, dates where a day begins, offsets in a repeated hour (two lines). */
export function tickLabels(positions: readonly number[], zone: string): string[] {
  const step = positions.length > 1 ? positions[1]! - positions[0]! : 60_000;
  return positions.map((instant) => {
    const wall = instant + offsetMs(instant, zone);
    if (step >= DAY_MS - 2 * HOUR_MS || wall % DAY_MS === 0) return date(instant, zone).slice(5);
    let text = clock(instant, zone, step % 60_000 !== 0).replace(" ", "\n");
    if (step < 1000) text += new Date(wall).toISOString().slice(19, 23);
    return text;
  });
}
