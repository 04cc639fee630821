"""OpenAI's own client, unchanged: another base_url, another key. The answer names its receipt."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("TARGON_BASE_URL", "http://127.0.0.1:8888/v1"),
    api_key=os.environ["TARGON_API_KEY"],
)
model = os.environ.get("TARGON_MODEL") or client.models.list().data[0].id
messages = [{"role": "user", "content": "Why is the sky blue?"}]
answer = client.chat.completions.create(model=model, messages=messages, max_tokens=32)
print(answer.choices[0].message.content)
print(f"receipt {answer.choices[0].model_extra['targon']['receipt_id']}")

for chunk in client.chat.completions.create(model=model, messages=messages, max_tokens=32, stream=True):
    print(chunk.choices[0].delta.content or "", end="")
print()
