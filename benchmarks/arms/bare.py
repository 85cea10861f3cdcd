"""The least latency that a durable answer can have: consume, commit a row, produce with acks=all; nothing else."""

import asyncio
import sys

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer


async def loop(bootstrap: str, url: str, topic: str, answers: str) -> None:
    """Turn every request into a row and an answer with the same key and value."""
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE IF NOT EXISTS bare (key text, value text)")
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=f"bare-{topic}", enable_auto_commit=False)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True, acks="all")
    await consumer.start()
    await producer.start()
    while True:
        for records in (await consumer.getmany(timeout_ms=1000)).values():
            rows = [(record.key.decode(), record.value.decode()) for record in records]
            async with connection.transaction():
                await connection.executemany("INSERT INTO bare VALUES ($1, $2)", rows)
            sent = [await producer.send(answers, record.value, record.key) for record in records]
            await asyncio.gather(*sent)


async def main(*arguments: str) -> None:
    """Run the arm until standard input ends."""
    running = asyncio.create_task(loop(*arguments))
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await asyncio.wait([running, asyncio.ensure_future(ended)], return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        running.result()
    running.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
