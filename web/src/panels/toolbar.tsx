/** The page's one time window, what the charts show of it, and a link to these very minutes. */
import { useSignal } from "@preact/signals";
import type { JSX } from "preact";
import { fitAll } from "../chart/fit";
import { clock, moment, offsetText } from "../model/time";
import { shown, stream, windowResolution } from "../state/session";
import { now, windowStreams, zone } from "../state/store";
import { RANGES, shareAddress, show, view } from "../state/view";

export function Toolbar(): JSX.Element {
  const { range } = view.value;
  const { from, to } = shown.value;
  const copied = useSignal<string | null>(null);
  const share = async (): Promise<void> => {
    const address = shareAddress(from, to);
    try {
      await navigator.clipboard.writeText(address);
      copied.value = "link copied";
    } catch {
      history.replaceState(null, "", address);
      copied.value = "link is in the address bar";
    }
    setTimeout(() => (copied.value = null), 4000);
  };
  const streams = windowStreams.value;
  return (
    <div class="toolbar" role="toolbar" aria-label="Time window">
      <div class="segments" role="group" aria-label="Time window of all charts">
        {RANGES.map((option) => (
          <button
            key={option.name}
            type="button"
            aria-pressed={range.kind === "last" && range.name === option.name}
            onClick={() => show({ range: { kind: "last", name: option.name } })}
          >
            {option.text}
          </button>
        ))}
      </div>
      <span class="toolbar-span">
        {moment(from, now.value, zone.value)} – {range.kind === "last" ? "now" : moment(to, now.value, zone.value)}{" "}
        <span class="muted">{offsetText(to, zone.value)}</span>
        {range.kind === "fixed" ? <strong class="toolbar-fixed"> fixed, not moving on</strong> : null}
      </span>
      <span class="muted toolbar-resolution">{windowResolution.value ? `power: ${windowResolution.value}, sums of means` : ""}</span>
      {streams.length > 1 ? (
        <label class="toolbar-stream">
          windows{" "}
          <select value={stream.value ?? ""} onChange={(event) => show({ stream: event.currentTarget.value })}>
            {streams.map((name) => (
              <option key={name}>{name}</option>
            ))}
          </select>
        </label>
      ) : null}
      <span class="toolbar-end">
        <span role="status" class="muted">
          {copied.value ?? ""}
        </span>
        <button type="button" onClick={fitAll} title="Fit the vertical ranges to the data">
          Fit
        </button>
        <button type="button" onClick={() => void share()} title={`Copy a link to ${clock(from, zone.value)} – ${clock(to, zone.value)}`}>
          Share
        </button>
      </span>
    </div>
  );
}
