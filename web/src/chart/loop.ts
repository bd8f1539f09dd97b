/**
 * One animation loop for all charts: draws what changed, what is on screen only, at most 8 ms a frame.
 */

const SLICE_MS = 8;

export interface Drawable {
  readonly visible: boolean;
  draw(): void;
}

const waiting = new Set<Drawable>();
let scheduled = false;

/** Ask for `drawable` to be drawn in the next frame that has room for it. */
export function requestDraw(drawable: Drawable): void {
  waiting.add(drawable);
  schedule();
}

/** A chart that has come into view or gone. */
export function forget(drawable: Drawable): void {
  waiting.delete(drawable);
}

function schedule(): void {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(frame);
}

function frame(): void {
  scheduled = false;
  const end = performance.now() + SLICE_MS;
  let left = false;
  for (const drawable of waiting) {
    if (!drawable.visible) continue;
    if (performance.now() >= end) {
      left = true;
      break;
    }
    // To the back of the queue, should it ask again: no chart starves the others.
    waiting.delete(drawable);
    drawable.draw();
  }
  if (left) schedule();
}
