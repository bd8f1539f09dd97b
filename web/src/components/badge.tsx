/** A priority as shape, digit and colour together: ■1, ▲2, ◆3. */
import type { JSX } from "preact";
import type { Priority } from "../model/abnormal";

export function Badge({ priority }: { priority: Priority }): JSX.Element {
  return (
    <svg class={`badge p${priority}`} viewBox="0 0 20 20" role="img" aria-label={`priority ${priority}`}>
      {priority === 1 ? <rect x="2" y="2" width="16" height="16" /> : null}
      {priority === 2 ? <path d="M10 1.5 19 18H1Z" /> : null}
      {priority === 3 ? <path d="M10 .8 19.2 10 10 19.2.8 10Z" /> : null}
      <text x="10" y={priority === 2 ? 15.8 : 14.2} text-anchor="middle">
        {priority}
      </text>
    </svg>
  );
}
