/** Programs that speak wharf's wire protocol 1: see docs/PROTOCOL.md of wharf. */

export type Retry = "safe" | "unsafe" | "never";
export type Level = "trace" | "debug" | "info" | "warn" | "error";

/** What a handler may want to know of its call beside the payload. */
export interface Call {
  readonly id: number;
  /** The 25 bytes of the W3C trace context, where there is one. */
  readonly trace?: Buffer;
  /** Aborted when nobody waits for the answer any more. */
  readonly signal: AbortSignal;
}

export interface Options {
  name: string;
  version?: string;
  /** How many calls are worked on at once; 0 takes none. Default 1. */
  concurrency?: number;
  /** What payloads are: `raw` (Buffer), `text` (string) or `json` (values). Default `raw`. */
  enc?: "raw" | "text" | "json";
  /** The largest payload taken, in bytes. Default 16 MiB. */
  maxFrame?: number;
  /** How many data frames may be on their way. Default: as many as the pipe takes. */
  credit?: number;
}

/** Thrown by a handler: the caller gets this code and message. */
export class CallFailed extends Error {
  constructor(code: string, message: string, retry?: Retry, data?: unknown);
}

/** What came is not the protocol. There is no way back from it. */
export class ProtocolError extends Error {}

export class Port {
  constructor(options: Options);
  /** The manager's HELLO, once the port runs. */
  readonly manager?: Record<string, unknown>;
  /** Answers calls. What an async iterator yields are the parts of a reply. */
  onCall(handler: (payload: any, call: Call) => unknown): this;
  /** Takes messages that nobody answers. */
  onData(handler: (payload: any) => unknown): this;
  /** Says something to whoever listens. */
  send(payload: unknown): Promise<void>;
  /** Writes a line to the program's log. */
  log(level: Level, message: string, fields?: Record<string, unknown>): Promise<void>;
  /** Speaks until the input ends or the manager drains the port; then every call is answered. */
  run(): Promise<void>;
}
