"""Ask one question, and verify the answer before it is used."""

import os

from targon.client import Client

client = Client()  # TARGON_BASE_URL and TARGON_API_KEY
model = os.environ.get("TARGON_MODEL") or client.models.list().data[0].id
answer = client.chat.completions.create(
    model=model,
    messages=[
        {"role": "developer", "content": "Answer in one sentence."},
        {"role": "user", "content": "Why are there tides?"},
    ],
    temperature=0.7,
    max_tokens=48,
)
answer.verify()
print(answer.choices[0].message.content)
print(f"answered by {answer.receipt.prover}, receipt {answer.receipt.id}")
