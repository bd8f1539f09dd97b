/** The colours and font that canvases take from the style sheet, for the theme in force. */
import { signal } from "@preact/signals";

export interface Theme {
  panel: string;
  ink: string;
  muted: string;
  border: string;
  grid: string;
  series: readonly string[];
  font: string;
}

function read(): Theme {
  const style = getComputedStyle(document.documentElement);
  const token = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  return {
    panel: token("panel"),
    ink: token("ink"),
    muted: token("muted"),
    border: token("border"),
    grid: token("grid"),
    series: [1, 2, 3, 4, 5].map((number) => token(`series-${number}`)),
    font: `12px ${getComputedStyle(document.body).fontFamily}`,
  };
}

export const theme = signal<Theme>(read());
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  theme.value = read();
});
