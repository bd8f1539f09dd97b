/** What axe cannot see: the colours that canvases and shapes take from the tokens, against their grounds. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

const css = readFileSync(new URL("../src/styles/tokens.css", import.meta.url), "utf8");
const [light = "", dark = ""] = css.split("@media");

function tokens(part: string): Record<string, string> {
  return Object.fromEntries([...part.matchAll(/--([\w-]+):\s*(#[0-9A-Fa-f]{6})/g)].map((match) => [match[1]!, match[2]!]));
}

/** Relative luminance, WCAG 2.2. */
function luminance(colour: string): number {
  const [r, g, b] = [1, 3, 5].map((at) => {
    const channel = parseInt(colour.slice(at, at + 2), 16) / 255;
    return channel <= 0.04045 ? channel / 12.92 : ((channel + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x) as [number, number];
  return (high + 0.05) / (low + 0.05);
}

describe.each([
  ["light", tokens(light)],
  ["dark", tokens(dark)],
])("%s theme", (_name, theme) => {
  const get = (name: string): string => theme[name]!;

  it.each(["ink", "muted"])("text in %s reaches 4.5 on every ground it stands on", (name) => {
    for (const ground of ["page", "panel", "raised", "pressed"]) {
      if (name === "muted" && ground === "pressed") continue;
      expect(contrast(get(name), get(ground))).toBeGreaterThanOrEqual(4.5);
    }
  });

  it.each(["border", "focus", "series-1", "series-2", "series-3", "series-4", "series-5"])("%s reaches 3 on the panel", (name) => {
    expect(contrast(get(name), get("panel"))).toBeGreaterThanOrEqual(3);
  });

  it("direct labels of the three power lines reach 3 on the panel, with dash and name beside them", () => {
    for (const name of ["series-1", "series-2", "series-3"]) expect(contrast(get(name), get("panel"))).toBeGreaterThanOrEqual(3);
  });

  it("digits in badges reach 4.5", () => {
    expect(contrast(get("badge-text"), get("p1"))).toBeGreaterThanOrEqual(4.5);
    expect(contrast(get("badge-text"), get("p3"))).toBeGreaterThanOrEqual(4.5);
    expect(contrast(get("p2-text"), get("p2"))).toBeGreaterThanOrEqual(4.5);
  });

  it("badges stand out from the panel, priority 2 by its outline", () => {
    for (const name of ["p1", "p3", "p2-outline"]) expect(contrast(get(name), get("panel"))).toBeGreaterThanOrEqual(3);
  });

  it("words in priority colours reach 4.5", () => {
    for (const name of ["p1", "p3"]) expect(contrast(get(name), get("panel"))).toBeGreaterThanOrEqual(4.5);
  });
});
