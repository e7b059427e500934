// Drives graphile-worker with jobs that do nothing. Arguments: connection, mode (single | one-by-one | batched), jobs.
// Says "ready" when its schema is there, waits for a line, works, and says its figures as one line of JSON.

import { createInterface } from "node:readline";
import { makeWorkerUtils, run } from "graphile-worker";

const [connectionString, mode, count] = process.argv.slice(2);
const jobs = Number(count);
const UNDER_WAY = mode === "single" ? 1 : 512;
const BATCH = 100;

const utils = await makeWorkerUtils({ connectionString });
await utils.migrate();
const runner = await run({
  connectionString,
  concurrency: mode === "single" ? 1 : 24,
  maxPoolSize: 24,
  noHandleSignals: true,
  logger: undefined,
  preset: mode === "batched"
    ? { worker: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 } }
    : {},
  taskList: { nothing: async () => {} },
});

const started = new Array(jobs);
const times = [];
let resolveAll;
const all = new Promise((resolve) => { resolveAll = resolve; });
let room = UNDER_WAY;
let wake = () => {};
runner.events.on("job:complete", ({ job }) => {
  times.push(performance.now() - started[job.payload.index]);
  room += 1;
  wake();
  if (times.length === jobs) resolveAll();
});

async function waitForRoom(wanted) {
  while (room < wanted) await new Promise((resolve) => { wake = resolve; });
}

const stdin = createInterface({ input: process.stdin });
console.log("ready");
await new Promise((resolve) => stdin.once("line", resolve));

const begin = performance.now();
if (mode === "batched") {
  for (let index = 0; index < jobs; ) {
    await waitForRoom(Math.min(BATCH, jobs - index));
    const specs = [];
    for (; specs.length < BATCH && index < jobs; index += 1) {
      started[index] = performance.now();
      room -= 1;
      specs.push({ identifier: "nothing", payload: { index } });
    }
    await utils.addJobs(specs);
  }
} else {
  const adding = new Set();
  for (let index = 0; index < jobs; index += 1) {
    await waitForRoom(1);
    room -= 1;
    started[index] = performance.now();
    const one = utils.addJob("nothing", { index }).finally(() => adding.delete(one));
    adding.add(one);
    // As many calls at once as the pool has connections.
    if (adding.size >= 10) await Promise.race(adding);
  }
}
await all;
const seconds = (performance.now() - begin) / 1000;
times.sort((a, b) => a - b);
const at = (percent) => times[Math.min(times.length - 1, Math.floor((times.length * percent) / 100))];
console.log(JSON.stringify({ seconds, p50: at(50), p99: at(99) }));
await new Promise((resolve) => stdin.once("line", resolve));
process.exit(0);
