/**
 * A value as the portal shows one: number and unit, muted with a dashed border when stale, with its age then.
 *
 * `raw` is what copying yields: the value as received, without rounding.
 */
import type { JSX } from "preact";
import { age } from "../model/number";
import { isCut } from "../state/store";

interface ValueProps {
  text: string;
  raw?: number | null | undefined;
  stale?: boolean;
  age_s?: number | null | undefined;
  size?: "large" | "medium" | "small";
  title?: string;
}

export function Value({ text, raw, stale = false, age_s, size = "small", title }: ValueProps): JSX.Element {
  const old = stale || isCut.value;
  return (
    <span class={`value value-${size}${old ? " stale" : ""}`} data-raw={raw ?? undefined} title={title}>
      <span class="value-text">{text}</span>
      {old && age_s != null ? <span class="value-age"> {age(age_s)} old</span> : null}
    </span>
  );
}

/** Copying within one value yields the value as received. */
export function copyRaw(event: ClipboardEvent): void {
  const within = (node: Node | null | undefined): HTMLElement | null =>
    (node instanceof Element ? node : node?.parentElement)?.closest<HTMLElement>("[data-raw]") ?? null;
  const selection = getSelection();
  const anchor = within(selection?.anchorNode);
  const focus = within(selection?.focusNode);
  if (!anchor || anchor !== focus || !event.clipboardData) return;
  event.clipboardData.setData("text/plain", anchor.dataset["raw"] ?? "");
  event.preventDefault();
}
