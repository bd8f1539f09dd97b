/**
 * The page's one WebSocket: batches in, acknowledgements out.
 *
 * The node sends a batch only after the one before was acknowledged; the acknowledgement goes out after the
 * batch has been drawn, so a slow browser gets fewer, larger batches instead of a growing backlog. Nothing
 * heard for `SILENCE_MS` means disconnected, whatever the socket says. Reconnects after 0.5 to 10 s with jitter.
 */
import type { Batch, ServerMessage, Welcome } from "../model/contract";

export const SILENCE_MS = 5_000;
/** What the node calls a missing or wrong token, as an error and as the reason of closing. */
const REFUSED = "token";
const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 10_000;

export interface SocketEvents {
  connected(welcome: Welcome): void;
  batch(batch: Batch): void;
  heard(now_ms: number): void;
  lost(why: string): void;
  unauthorised(): void;
}

/** Delay before attempt `attempt` (0, 1, ...): doubling, half of it at random, between 0.5 and 10 s. */
export function retryDelayMs(attempt: number, random: number): number {
  const ceiling = Math.min(RETRY_MAX_MS, RETRY_MIN_MS * 2 ** Math.min(attempt + 1, 10));
  return Math.max(RETRY_MIN_MS, ceiling * (0.5 + random / 2));
}

export class LiveSocket {
  private socket: WebSocket | null = null;
  private silence = 0;
  private retry = 0;
  private attempt = 0;
  private welcomed = false;
  private stopped = false;
  private watched: { series: string[]; stream: string | null } = { series: [], stream: null };

  constructor(
    private readonly events: SocketEvents,
    private readonly token: () => string | null,
  ) {
    document.addEventListener("visibilitychange", () => this.tellHidden());
    addEventListener("online", () => this.reconnectNow());
  }

  start(): void {
    this.stopped = false;
    this.open();
  }

  stop(): void {
    this.stopped = true;
    clearTimeout(this.retry);
    this.drop();
  }

  /** Try at once instead of waiting for the next attempt. */
  reconnectNow(): void {
    if (this.stopped || this.welcomed) return;
    this.attempt = 0;
    clearTimeout(this.retry);
    this.drop();
    this.open();
  }

  watch(series: string[], stream: string | null): void {
    this.watched = { series, stream };
    if (this.welcomed) this.sendWatch();
  }

  private open(): void {
    const address = new URL("api/v1/ws", document.baseURI);
    address.protocol = address.protocol === "https:" ? "wss:" : "ws:";
    const socket = new WebSocket(address);
    this.socket = socket;
    this.listen();
    socket.onopen = () => this.send({ op: "hello", token: this.token() });
    socket.onmessage = (event) => this.take(socket, String(event.data));
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      if (event.reason === REFUSED) this.refuse();
      else this.fail(event.reason || "the connection was closed");
    };
  }

  private take(socket: WebSocket, text: string): void {
    if (this.socket !== socket) return;
    this.listen();
    const message = JSON.parse(text) as ServerMessage;
    switch (message.type) {
      case "welcome":
        this.attempt = 0;
        this.welcomed = true;
        this.events.connected(message);
        this.sendWatch();
        if (document.hidden) this.tellHidden();
        return;
      case "batch":
        this.events.heard(message.now_ms);
        this.events.batch(message);
        this.acknowledge(socket, message.seq);
        return;
      case "heartbeat":
        this.events.heard(message.now_ms);
        return;
      case "error":
        if (message.error === REFUSED) this.refuse();
        else console.warn(`live connection: ${message.error}: ${message.detail ?? ""}`);
    }
  }

  private acknowledge(socket: WebSocket, seq: number): void {
    const send = (): void => {
      if (this.socket === socket) this.send({ op: "ack", seq });
    };
    // A hidden tab draws nothing, and its frames never come.
    if (document.hidden) send();
    else requestAnimationFrame(send);
  }

  private send(message: object): void {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  private sendWatch(): void {
    const { series, stream } = this.watched;
    this.send(stream === null ? { op: "watch", series } : { op: "watch", series, stream });
  }

  private tellHidden(): void {
    this.send({ op: "hidden", hidden: document.hidden });
  }

  private listen(): void {
    clearTimeout(this.silence);
    this.silence = window.setTimeout(() => this.fail(`nothing heard for ${SILENCE_MS / 1000} s`), SILENCE_MS);
  }

  private refuse(): void {
    this.stop();
    this.events.unauthorised();
  }

  private fail(why: string): void {
    this.drop();
    if (this.stopped) return;
    this.events.lost(why);
    this.retry = window.setTimeout(() => this.open(), retryDelayMs(this.attempt, Math.random()));
    this.attempt += 1;
  }

  private drop(): void {
    clearTimeout(this.silence);
    const socket = this.socket;
    this.socket = null;
    this.welcomed = false;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }
}
