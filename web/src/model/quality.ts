/** The quality bit field of a reading in words (the same bits as `ringmain.model.quality`). */

const FLAGS: readonly [number, string][] = [
  [0x0010, "test"],
  [0x0020, "blocked"],
  [0x0040, "clock unsynchronised"],
  [0x0080, "clock wrong"],
  [0x0100, "historical"],
  [0x0200, "time of arrival"],
  [0x0400, "overflow"],
  [0x0800, "out of range"],
  [0x1000, "old data"],
  [0x2000, "inconsistent"],
  [0x4000, "inaccurate"],
  [0x8000, "communication lost"],
];
const ORIGINS = ["", "substituted", "estimated", "calculated"] as const;

/** "good", "questionable" or "invalid": the two validity bits. */
export function validity(bits: number): "good" | "questionable" | "invalid" {
  const code = bits & 3;
  return code === 0 ? "good" : code === 1 ? "questionable" : "invalid";
}

/** Validity, origin and every flag that is set, as words. */
export function qualityText(bits: number): string {
  const words: string[] = [validity(bits)];
  const origin = ORIGINS[(bits >> 2) & 3];
  if (origin) words.push(origin);
  for (const [bit, word] of FLAGS) if (bits & bit) words.push(word);
  return words.join(", ");
}

const TRUST_LOST = 0x0080 | 0x0020 | 0x8000 | 0x0400 | 0x0800 | 0x2000;

/** True when a value must not be taken at face value: not valid, or a flag that says why not to trust it. */
export function isSuspect(bits: number): boolean {
  return (bits & 3) !== 0 || (bits & TRUST_LOST) !== 0;
}
