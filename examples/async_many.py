"""Ask many questions at once; each answer is verified as it comes."""

import asyncio
import os

from targon.client import AsyncClient

TOPICS = ["tides", "rainbows", "earthquakes", "seasons", "echoes", "lightning", "dew", "deserts"]


async def ask(client: AsyncClient, model: str, topic: str) -> str:
    answer = await client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": f"Why are there {topic}?"}], max_tokens=24
    )
    answer.verify()
    return f"{topic}: {answer.receipt.prover[:8]} said {answer.choices[0].message.content!a}"


async def main() -> None:
    async with AsyncClient(timeout=120.0) as client:  # TARGON_BASE_URL and TARGON_API_KEY
        model = os.environ.get("TARGON_MODEL") or (await client.models.list()).data[0].id
        for line in await asyncio.gather(*(ask(client, model, topic) for topic in TOPICS)):
            print(line)


asyncio.run(main())
