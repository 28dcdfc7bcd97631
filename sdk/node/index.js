// Programs that speak wharf's wire protocol 1: see docs/PROTOCOL.md of wharf.
//
// What is printed goes to standard error while the port runs: standard output belongs to the protocol.
import net from "node:net";

const PROTO = 1;
const MAX_FRAME = 16 << 20;
const [DATA, CALL, REPLY, ERROR, CANCEL, CREDIT] = [0, 1, 2, 3, 4, 5];
const [HELLO, READY, PING, PONG, DRAIN, EXIT] = [0x10, 0x11, 0x12, 0x13, 0x14, 0x15];
const LOG = 0x30;
const [MORE, FDS, TRACE, NOREPLY, TO, CRITICAL] = [0x01, 0x02, 0x04, 0x08, 0x10, 0x80];
const UNKNOWN = 0x60;

const isKnown = (kind) =>
  kind <= 6 || (kind >= HELLO && kind <= EXIT) || (kind >= 0x20 && kind <= 0x26) || kind === LOG || kind === 0x31;

export class ProtocolError extends Error {}

export class CallFailed extends Error {
  constructor(code, message, retry = "unsafe", data = undefined) {
    super(message);
    this.failure = { code, message, retry, data };
  }
}

/** Frames of a stream of bytes. Nothing is put together before its length was checked. */
async function* frames(input, maxFrame) {
  let parts = [];
  let have = 0;
  let wanted = 4;
  for await (const chunk of input) {
    parts.push(chunk);
    have += chunk.length;
    while (have >= wanted) {
      let bytes = parts.length === 1 ? parts[0] : Buffer.concat(parts, have);
      const length = bytes.readUInt32BE(0);
      if (length < 10 || length - 10 > maxFrame) throw new ProtocolError(`a frame announces ${length} bytes`);
      wanted = 4 + length;
      if (have >= wanted) {
        const frame = read(bytes.subarray(4, wanted));
        bytes = bytes.subarray(wanted);
        wanted = 4;
        if (frame) yield frame;
      }
      parts = bytes.length > 0 ? [bytes] : [];
      have = bytes.length;
    }
  }
  if (have > 0) throw new ProtocolError("the input ended inside a frame");
}

/** One frame without its length; nothing where it is to be ignored. */
function read(bytes) {
  const [kind, flags] = bytes;
  if (kind >= 0x80) return undefined;
  if (!isKnown(kind)) throw new ProtocolError(`the kind ${kind} is not known`);
  if (flags & FDS || (flags & CRITICAL && flags & UNKNOWN)) {
    throw new ProtocolError(`the flags ${flags} cannot be heeded`);
  }
  const id = Number(bytes.readBigUInt64BE(2));
  let payload = bytes.subarray(10);
  let trace;
  if (flags & TRACE) [trace, payload] = [payload.subarray(0, 25), payload.subarray(25)];
  if (flags & TO) payload = payload.subarray(2 + payload.readUInt16BE(0));
  return { kind, flags, id, trace, payload };
}

export class Port {
  #options;
  #input;
  #output;
  #onCall;
  #onData;
  #calls = new Map();
  #open = new Set();

  constructor({ name, version = "0", concurrency = 1, enc = "raw", maxFrame = MAX_FRAME, credit }) {
    if (!["raw", "text", "json"].includes(enc)) throw new TypeError(`enc is raw, text or json, not ${enc}`);
    this.#options = { name, version, concurrency, enc, maxFrame, credit };
  }

  onCall(handler) {
    this.#onCall = handler;
    return this;
  }

  onData(handler) {
    this.#onData = handler;
    return this;
  }

  send(payload) {
    return this.#write(DATA, 0, 0, this.#encode(payload));
  }

  log(level, message, fields = {}) {
    return this.#control(LOG, { level, message, fields });
  }

  async run() {
    const { name, version, concurrency, enc, maxFrame, credit } = this.#options;
    if (process.env.PORT_PROTO !== String(PROTO)) {
      console.error(`${name} is a port: run it under wharf, with \`port: { protocol: 1 }\``);
      process.exitCode = 2;
      return;
    }
    this.#connect();
    const hello = { proto: PROTO, name, version, concurrency, enc, max_frame: maxFrame, credit };
    await this.#control(HELLO, hello);
    for await (const frame of frames(this.#input, maxFrame)) {
      if (!(await this.#serve(frame))) break;
    }
    await Promise.all(this.#open);
    await this.#control(EXIT, { reason: "returned" });
    this.#input.destroy();
  }

  #connect() {
    if (process.env.PORT_CHANNEL === "3") {
      this.#input = this.#output = new net.Socket({ fd: 3, readable: true, writable: true });
      return;
    }
    this.#input = process.stdin;
    const { stdout, stderr } = process;
    const write = stdout.write.bind(stdout);
    this.#output = { write };
    // Whoever prints must not meet the protocol.
    stdout.write = stderr.write.bind(stderr);
  }

  /** Takes a frame. Whether there may be more. */
  async #serve({ kind, flags, id, trace, payload }) {
    if (!this.manager && kind !== HELLO) {
      throw new ProtocolError(`the first frame is of the kind ${kind}, and HELLO is due`);
    }
    if (kind === HELLO) {
      this.manager = JSON.parse(payload);
      await this.#control(READY, {});
    } else if (kind === CALL) {
      const answer = this.#answer(id, trace, payload, Boolean(flags & NOREPLY));
      this.#open.add(answer);
      answer.finally(() => this.#open.delete(answer));
    } else if (kind === DATA) {
      await this.#take(payload);
    } else if (kind === CANCEL) {
      this.#calls.get(id)?.abort();
    } else if (kind === PING) {
      await this.#write(PONG, 0, id, Buffer.alloc(0));
    }
    return kind !== DRAIN;
  }

  async #take(payload) {
    try {
      await this.#onData?.(this.#decode(payload));
    } catch (error) {
      console.error(error);
    }
    if (this.#options.credit !== undefined) await this.#control(CREDIT, { frames: 1 });
  }

  async #answer(id, trace, payload, quietly) {
    const controller = new AbortController();
    this.#calls.set(id, controller);
    const reply = async (flags, part) => quietly || (await this.#write(REPLY, flags, id, this.#encode(part)));
    try {
      if (!this.#onCall) throw new CallFailed("not_supported", "this port takes no calls", "never");
      const answer = await this.#onCall(this.#decode(payload), { id, trace, signal: controller.signal });
      if (typeof answer?.[Symbol.asyncIterator] === "function") {
        let part;
        let isFirst = true;
        for await (const following of answer) {
          if (!isFirst) await reply(MORE, part);
          [part, isFirst] = [following, false];
        }
        await reply(0, part);
      } else {
        await reply(0, answer);
      }
    } catch (error) {
      const failure = error.failure ?? { code: "internal", message: String(error) };
      if (!error.failure) console.error(error);
      if (!quietly) await this.#control(ERROR, failure, id);
    } finally {
      this.#calls.delete(id);
    }
  }

  #encode(value) {
    if (this.#options.enc === "json") return Buffer.from(JSON.stringify(value ?? null));
    return value === undefined || value === null ? Buffer.alloc(0) : Buffer.from(value);
  }

  #decode(payload) {
    const { enc } = this.#options;
    if (enc === "raw") return payload;
    try {
      const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(payload);
      return enc === "json" ? JSON.parse(text) : text;
    } catch (error) {
      throw new CallFailed("bad_request", `the payload is not ${enc}: ${error.message}`, "never");
    }
  }

  #control(kind, payload, id = 0) {
    return this.#write(kind, 0, id, Buffer.from(JSON.stringify(payload)));
  }

  async #write(kind, flags, id, payload) {
    const largest = this.manager?.max_frame ?? MAX_FRAME;
    if (payload.length > largest) {
      throw new CallFailed("too_large", `${payload.length} bytes, ${largest} are allowed`, "never");
    }
    const head = Buffer.alloc(14);
    head.writeUInt32BE(payload.length + 10, 0);
    head.writeUInt8(kind, 4);
    head.writeUInt8(flags, 5);
    head.writeBigUInt64BE(BigInt(id), 6);
    // Resolved when it is with the kernel, so that who answers waits for a manager that does not read.
    await new Promise((resolve, reject) => {
      this.#output.write(Buffer.concat([head, payload]), (error) => (error ? reject(error) : resolve()));
    });
  }
}
