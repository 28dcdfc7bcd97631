#!/usr/bin/env node
// A port that counts words: a text is answered by {"words": 3, "bytes": 12}.
import { CallFailed, Port } from "../index.js";

const port = new Port({ name: "words", version: "0.1.0", enc: "text", concurrency: 8 });

port.onCall(async (text) => {
  if (text === "") throw new CallFailed("bad_request", "there is nothing to count", "never");
  const words = text.split(/\s+/).filter((word) => word !== "").length;
  return JSON.stringify({ words, bytes: Buffer.byteLength(text) });
});

port.onData((text) => port.log("info", "something was sent", { text }));

try {
  await port.run();
} catch (error) {
  console.error(`cannot go on: ${error.message}`);
  process.exit(1);
}
