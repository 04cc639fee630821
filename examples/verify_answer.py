"""Expect a certain verifier, ask what it has on file of an answer, and keep all of it for `targon verify`."""

import os
import sys

from targon.client import Client, NotVerified

client = Client()  # TARGON_BASE_URL and TARGON_API_KEY
model = os.environ.get("TARGON_MODEL") or client.models.list().data[0].id
answer = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "What is a prime?"}], max_tokens=32
)
try:
    # your verifier's hotkey, which its operator tells you; None expects any
    answer.verify(verifier=os.environ.get("TARGON_VERIFIER_HOTKEY"))
    statement = client.receipt(answer.receipt)
except NotVerified as error:
    raise SystemExit(error.diagnostics()) from error

signed = statement.countersignature.body
print(f"prover    {answer.receipt.prover}")
print(f"model     {answer.receipt.model}, digest {answer.receipt.model_digest}")
print(f"verifier  {signed.verifier}: record {signed.record} of its log")
print(f"audit     {statement.audit.outcome if statement.audit else 'none, or not published yet'}")

path = sys.argv[1] if len(sys.argv) > 1 else "answers.jsonl"
answer.save(path, statement)
print(f"to replay it with the model: targon verify {path}")
