/** Keys for the whole page: `/`, `a`, `?`, and `g` followed by a letter. Fields and switched-off shortcuts are respected. */
import { openHelp, singleKeys } from "./panels/help";
import { focusSearch } from "./panels/search";

const PLACES: Record<string, string> = { p: "power", s: "series", a: "abnormal", l: "alarms", d: "letters", o: "sources" };
const SEQUENCE_MS = 1500;

/** Bring a region into view and the keyboard to its heading. */
export function goTo(id: string): void {
  const region = document.getElementById(id);
  if (!region) return;
  region.scrollIntoView({ block: "start" });
  const heading = region.querySelector<HTMLElement>("h2[tabindex]");
  heading?.focus({ preventScroll: true });
}

/** Bring the keyboard to the button of the first alarm that nobody has acknowledged. */
function acknowledgeFirst(): void {
  const first = document.querySelector<HTMLElement>("#alarms .unacknowledged .acknowledge");
  if (first) {
    first.scrollIntoView({ block: "nearest" });
    first.focus();
  } else {
    goTo("alarms");
  }
}

export function startKeyboard(): void {
  let gone = -Infinity;
  addEventListener("keydown", (event) => {
    const target = event.target as HTMLElement;
    if (event.ctrlKey || event.metaKey || event.altKey || !singleKeys.peek() || event.defaultPrevented) return;
    if (target.closest("input, select, textarea, dialog, [contenteditable]")) return;
    const place = PLACES[event.key];
    if (event.timeStamp - gone < SEQUENCE_MS && place) {
      gone = -Infinity;
      goTo(place);
    } else if (event.key === "g") {
      gone = event.timeStamp;
      return;
    } else if (event.key === "a") {
      acknowledgeFirst();
    } else if (event.key === "/") {
      focusSearch();
    } else if (event.key === "?") {
      openHelp();
    } else {
      return;
    }
    event.preventDefault();
  });
}
