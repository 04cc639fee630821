"""The gateway: users' requests in, provers' answers out, each with a receipt.

It speaks the API that users' clients know, and holds them to their keys and limits. It must never decide who serves a
request, whether an answer is audited, or what it is worth: those are the verifier's, behind its desk
(:mod:`targon.gateway.ports`). It never stores or logs what users say, and acknowledges no answer that the log
doesn't hold.
"""
