"""Read an answer piece by piece, and verify it at its end: until then nothing of it is certain."""

import os

from targon.client import Client, NotVerified

client = Client()  # TARGON_BASE_URL and TARGON_API_KEY
model = os.environ.get("TARGON_MODEL") or client.models.list().data[0].id
stream = client.chat.completions.create(
    model=model,
    messages=[{"role": "user", "content": "Tell me of the sea."}],
    max_tokens=64,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
print()
try:
    stream.verify()
except NotVerified as error:
    raise SystemExit(error.diagnostics()) from error
print(f"verified: {stream.receipt.prover} signed all of it")
