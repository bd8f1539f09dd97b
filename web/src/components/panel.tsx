/** A titled region of the page, and what stands in it while there is nothing to show. */
import type { ComponentChildren, JSX } from "preact";
import { useEffect, useState } from "preact/hooks";
import { clock } from "../model/time";
import { zone } from "../state/store";

interface PanelProps {
  id: string;
  title: ComponentChildren;
  note?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}

export function Panel({ id, title, note, class: more = "", children }: PanelProps): JSX.Element {
  return (
    <section id={id} class={`panel ${more}`} aria-labelledby={`${id}-title`}>
      <header class="panel-head">
        <h2 id={`${id}-title`} tabIndex={-1}>
          {title}
        </h2>
        {note ? <div class="panel-note">{note}</div> : null}
      </header>
      {children}
    </section>
  );
}

const SKELETON_AFTER_MS = 200;

/** Grey bars in place of content, only when loading takes longer than a blink. */
export function Skeleton({ lines }: { lines: number }): JSX.Element | null {
  const [due, setDue] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setDue(true), SKELETON_AFTER_MS);
    return () => clearTimeout(timer);
  }, []);
  if (!due) return <div class="skeleton" aria-hidden="true" />;
  return (
    <div class="skeleton" role="status" aria-label="loading">
      {Array.from({ length: lines }, (_, line) => (
        <span key={line} class="bone" />
      ))}
    </div>
  );
}

/** Nothing to show: why, and what to do next. */
export function Empty({ children }: { children: ComponentChildren }): JSX.Element {
  return <div class="empty">{children}</div>;
}

interface FailureProps {
  what: string;
  since_ms: number;
  reference: string | null;
  retry: () => void;
}

/** A part of the page that could not be loaded; the rest goes on. */
export function Failure({ what, since_ms, reference, retry }: FailureProps): JSX.Element {
  return (
    <div class="failure" role="alert">
      <p>
        <strong>Could not load:</strong> {what}
      </p>
      <p class="muted">
        since {clock(since_ms, zone.value)}
        {reference ? `, reference ${reference}` : ""}
      </p>
      <button type="button" onClick={retry}>
        Retry
      </button>
    </div>
  );
}
