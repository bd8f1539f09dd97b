/** Keyboard help, and the switch for single-key shortcuts (WCAG 2.1.4). */
import { signal } from "@preact/signals";
import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";

const SETTING = "ringmain.single-keys";

function stored(): boolean {
  try {
    return localStorage.getItem(SETTING) !== "off";
  } catch {
    return true;
  }
}

export const singleKeys = signal(stored());
const open = signal(false);

export function openHelp(): void {
  open.value = true;
}

const KEYS: readonly [string, string][] = [
  ["/", "search series"],
  ["g p", "go to power"],
  ["g s", "go to series"],
  ["g a", "go to abnormal"],
  ["g l", "go to alarms"],
  ["a", "go to the first alarm that nobody has acknowledged"],
  ["g d", "go to dead letters"],
  ["g o", "go to sources"],
  ["?", "this help"],
  ["← →", "in a chart: move the cursor"],
  ["+ −", "in a chart: zoom"],
  ["t", "in a chart: table"],
  ["f", "in a chart: fit the vertical range"],
  ["Esc", "close, or take the cursor away"],
];

export function HelpDialog(): JSX.Element {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    if (open.value && !dialog.current?.open) dialog.current?.showModal();
  }, [open.value]);
  return (
    <dialog ref={dialog} class="help" aria-labelledby="help-title" onClose={() => (open.value = false)}>
      <h2 id="help-title">Keyboard</h2>
      <dl class="keys">
        {KEYS.map(([key, meaning]) => (
          <div key={key}>
            <dt>
              {key.split(" ").map((part) => (
                <kbd key={part}>{part}</kbd>
              ))}
            </dt>
            <dd>{meaning}</dd>
          </div>
        ))}
      </dl>
      <label class="switch">
        <input
          type="checkbox"
          checked={singleKeys.value}
          onChange={(event) => {
            singleKeys.value = event.currentTarget.checked;
            try {
              localStorage.setItem(SETTING, singleKeys.value ? "on" : "off");
            } catch {
              // Storage can be switched off; the choice then lasts as long as the page.
            }
          }}
        />
        Single-key shortcuts
      </label>
      <form method="dialog">
        <button type="submit" autofocus>Close</button>
      </form>
    </dialog>
  );
}
