"""Drives NATS JetStream with messages that mean nothing. Arguments: url, mode (single | stream), jobs.

Says "ready" when its stream is there, waits for a line, works, and says its figures as one line of JSON.
"""

import asyncio
import json
import sys
import time

import nats
from nats.js.api import ConsumerConfig, StorageType, StreamConfig

url, mode, jobs = sys.argv[1], sys.argv[2], int(sys.argv[3])
UNDER_WAY = 1 if mode == "single" else 512
BATCH = 1 if mode == "single" else 256


async def main():
    publisher, worker = await nats.connect(url), await nats.connect(url)
    jetstream = publisher.jetstream()
    await jetstream.add_stream(
        StreamConfig(name="jobs", subjects=["jobs"], storage=StorageType.FILE, retention="workqueue")
    )
    consumer = await worker.jetstream().pull_subscribe(
        "jobs", durable="worker", config=ConsumerConfig(max_ack_pending=10_000)
    )
    started, times = [0.0] * jobs, []
    room = asyncio.Semaphore(UNDER_WAY)

    async def work():
        while len(times) < jobs:
            try:
                messages = await consumer.fetch(BATCH, timeout=5)
            except nats.errors.TimeoutError:
                continue
            # Acknowledged means that the server has confirmed the acknowledgement.
            await asyncio.gather(*(message.ack_sync() for message in messages))
            now = time.perf_counter()
            for message in messages:
                times.append(now - started[int(message.data)])
                room.release()

    print("ready", flush=True)
    line = asyncio.get_running_loop().run_in_executor
    await line(None, sys.stdin.readline)
    begin = time.perf_counter()
    working = asyncio.create_task(work())
    publishing = set()
    for index in range(jobs):
        await room.acquire()
        started[index] = time.perf_counter()
        task = asyncio.create_task(jetstream.publish("jobs", str(index).encode()))
        publishing.add(task)
        task.add_done_callback(publishing.discard)
    await asyncio.gather(*publishing)
    await working
    seconds = time.perf_counter() - begin
    times.sort()

    def at(percent):
        return times[min(len(times) - 1, len(times) * percent // 100)] * 1000

    print(json.dumps({"seconds": seconds, "p50": at(50), "p99": at(99)}), flush=True)
    await line(None, sys.stdin.readline)
    await worker.close()
    await publisher.close()


asyncio.run(main())
