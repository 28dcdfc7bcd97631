// A listener on pm2's bus: writes CLOCK_MONOTONIC to a named pipe at each end of a process.
const fs = require("node:fs");
const pm2 = require("pm2");

const heard = fs.openSync(process.argv[2], "w");
pm2.launchBus((error, bus) => {
  if (error) throw error;
  bus.on("process:event", (message) => {
    const at = process.hrtime.bigint();
    if (message.event === "exit") fs.writeSync(heard, `${at}\n`);
  });
  fs.writeSync(heard, "0\n");
});
