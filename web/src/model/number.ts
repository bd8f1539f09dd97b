/**
 * Numbers as a control room writes them: significant digits, a fixed unit prefix, U+202F between groups,
 * U+2212 for minus, the locale's decimal mark, and an em dash for what is missing.
 */

export const MISSING = "—";
const GROUP = "\u202f";
const MINUS = "\u2212";

const decimalMark =
  new Intl.NumberFormat().formatToParts(1.5).find((part) => part.type === "decimal")?.value ?? ".";

/** Digits with groups of three, the sign as U+2212 and the locale's decimal mark; `plain` is JavaScript's own notation. */
function dress(plain: string): string {
  const negative = plain.startsWith("-");
  const [whole = "0", fraction] = (negative ? plain.slice(1) : plain).split(".");
  const grouped = whole.replace(/\B(?=(\d{3})+(?!\d))/g, GROUP);
  const zero = !/[1-9]/.test(plain);
  return `${negative && !zero ? MINUS : ""}${grouped}${fraction ? decimalMark + fraction : ""}`;
}

/** An exact integer, grouped. */
export function integer(value: number | null | undefined): string {
  return value == null || !Number.isFinite(value) ? MISSING : dress(Math.round(value).toFixed(0));
}

/** A number with `digits` decimals, exactly. */
export function decimals(value: number | null | undefined, digits: number): string {
  return value == null || !Number.isFinite(value) ? MISSING : dress(value.toFixed(digits));
}

const DECIMALS_MAX = 6;
const PLAIN_MIN = 1e-6;
const PLAIN_MAX = 1e15;
const SUPERSCRIPT = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** Beyond what can be read digit by digit: 1.20×10³⁰⁰. */
function powerOfTen(value: number, digits: number): string {
  const [mantissa = "", exponent = "0"] = value.toExponential(digits - 1).split("e");
  const raised = exponent.replace("+", "").replace("-", "⁻").replace(/\d/g, (digit) => SUPERSCRIPT[Number(digit)]!);
  return `${dress(mantissa)}×10${raised}`;
}

/** `value` with so many significant digits. */
export function significant(value: number | null | undefined, digits: number): string {
  if (value == null || !Number.isFinite(value)) return MISSING;
  if (value === 0) return "0";
  if (Math.abs(value) >= PLAIN_MAX || Math.abs(value) < PLAIN_MIN) return powerOfTen(value, digits);
  const rounded = Number(value.toPrecision(digits));
  const magnitude = Math.floor(Math.log10(Math.abs(rounded)));
  return dress(rounded.toFixed(Math.min(DECIMALS_MAX, Math.max(0, digits - 1 - magnitude))));
}

/** A unit prefix: its sign and what one of it is in the unit without prefix. */
export interface Prefix {
  sign: "" | "k" | "M" | "G" | "T";
  factor: number;
}

const PREFIXES: readonly Prefix[] = [
  { sign: "", factor: 1 },
  { sign: "k", factor: 1e3 },
  { sign: "M", factor: 1e6 },
  { sign: "G", factor: 1e9 },
  { sign: "T", factor: 1e12 },
];
export const NO_PREFIX: Prefix = PREFIXES[0]!;

const PREFIXABLE = new Set(["W", "Wh", "VA", "VAh", "var", "varh", "V", "A", "J", "Pa", "bit/s"]);

/**
 * The prefix for values up to `magnitude` in `unit`. A prefix once chosen (`held`) stays while the values
 * remain readable with it, so that figures in a panel do not change their unit at every move.
 */
export function prefixFor(unit: string | null, magnitude: number, held?: Prefix): Prefix {
  if (unit === null || !PREFIXABLE.has(unit)) return NO_PREFIX;
  if (!Number.isFinite(magnitude) || magnitude <= 0) return held ?? NO_PREFIX;
  if (held && magnitude >= held.factor * 0.5 && magnitude < held.factor * 2000) return held;
  let chosen = NO_PREFIX;
  for (const prefix of PREFIXES) if (magnitude >= prefix.factor) chosen = prefix;
  return chosen;
}

const UNIT_WORDS: Record<string, string> = { "m3/h": "m³/h", m3: "m³", degC: "°C", Cel: "°C", celsius: "°C" };

/** The unit as printed, with its prefix. */
export function unitText(unit: string | null, prefix: Prefix = NO_PREFIX): string {
  if (unit === null || unit === "") return "";
  return prefix.sign + (UNIT_WORDS[unit] ?? unit);
}

/** A value with its unit: three digits in overviews, four in detail. */
export function quantity(value: number | null | undefined, unit: string | null, digits: number, prefix?: Prefix): string {
  if (value == null || !Number.isFinite(value)) return MISSING;
  const chosen = prefix ?? prefixFor(unit, Math.abs(value));
  const text = unitText(unit, chosen);
  return significant(value / chosen.factor, digits) + (text ? `\u00a0${text}` : "");
}

/** A share in percent; 100 % only when nothing at all is missing. */
export function percent(part: number, whole: number): string {
  if (whole <= 0) return MISSING;
  const share = (part / whole) * 100;
  const shown = part < whole ? Math.min(Math.floor(share * 10) / 10, 99.9) : share;
  return `${dress(shown >= 100 ? "100" : shown.toFixed(1))}\u00a0%`;
}

const BYTE_STEPS = ["B", "KiB", "MiB", "GiB", "TiB"] as const;

/** Bytes in binary multiples. */
export function bytes(count: number | null | undefined): string {
  if (count == null || !Number.isFinite(count)) return MISSING;
  let step = 0;
  let value = count;
  while (value >= 1024 && step < BYTE_STEPS.length - 1) {
    value /= 1024;
    step += 1;
  }
  return `${step === 0 ? integer(value) : significant(value, 3)}\u00a0${BYTE_STEPS[step]}`;
}

const AHEAD_S = 5;

/** Age or duration in at most two units; seconds first. A time that has not come yet is so long ahead. */
export function age(seconds: number | null | undefined): string {
  if (seconds == null || !Number.isFinite(seconds)) return MISSING;
  const nb = "\u00a0";
  if (seconds < -AHEAD_S) return `${age(-seconds)}${nb}ahead`;
  const s = Math.max(0, seconds);
  if (s < 1) return `<${nb}1${nb}s`;
  if (s < 100) return `${Math.floor(s)}${nb}s`;
  const minutes = Math.floor(s / 60);
  if (minutes < 100) return `${minutes}${nb}min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours}${nb}h${nb}${minutes % 60}${nb}min`;
  return `${integer(Math.floor(hours / 24))}${nb}d${nb}${hours % 24}${nb}h`;
}
