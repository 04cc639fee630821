"""What a prover asks of a caller and of a request before any work is done. Decisions only: no waiting."""

from __future__ import annotations

from targon.engines.port import ModelIdentity
from targon.protocol.errors import MalformedMessage, UnsupportedSampling
from targon.protocol.messages import GenerateRequest
from targon.protocol.primitives import Digest, Hotkey
from targon.protocol.sampler import check_sampling
from targon.prover.settings import ProverSettings
from targon.prover.view import ChainView
from targon.transport import Code, Policy, Refusal


def caller_policy(view: ChainView, settings: ProverSettings) -> Policy:
    """Who may ask: registered callers, with a permit where the settings force it."""

    def admit(hotkey: Hotkey) -> None:
        neuron = view.neuron(hotkey)
        if neuron is None and not settings.allow_non_registered:
            raise Refusal(
                Code.NOT_REGISTERED,
                f"the caller's hotkey has no UID on subnet {view.info.netuid}; register it first",
                got=hotkey,
            )
        if settings.force_verifier_permit and (neuron is None or not neuron.validator_permit):
            raise Refusal(
                Code.NO_VALIDATOR_PERMIT,
                f"this prover serves only callers with a validator permit on subnet {view.info.netuid}",
                got=hotkey,
            )

    return admit


def parse_request(body: bytes) -> GenerateRequest:
    """The request in a body.

    Raises:
        Refusal: ``malformed_request``, naming the fields.
    """
    try:
        return GenerateRequest.from_bytes(body)
    except MalformedMessage as error:
        raise Refusal(Code.MALFORMED_REQUEST, str(error), expected="a GenerateRequest") from error


def check_parties(
    request: GenerateRequest, *, caller: Hotkey, us: Hotkey, netuid: int, genesis: Digest
) -> None:
    """Check that the request is from its sender, for us, on our network.

    Raises:
        Refusal: ``wrong_verifier``, ``wrong_prover`` or ``wrong_network``.
    """
    if request.verifier != caller:
        raise Refusal(
            Code.WRONG_VERIFIER,
            "the request names another verifier than the hotkey that signed it",
            got=request.verifier,
            expected=caller,
        )
    if request.prover != us:
        raise Refusal(Code.WRONG_PROVER, "the request is for another prover", got=request.prover, expected=us)
    if request.netuid != netuid:
        raise Refusal(
            Code.WRONG_NETWORK, "the request is for another subnet", got=request.netuid, expected=netuid
        )
    if request.genesis != genesis:
        raise Refusal(
            Code.WRONG_NETWORK, "the request is for another chain", got=request.genesis, expected=genesis
        )


def check_task(request: GenerateRequest, identity: ModelIdentity) -> None:
    """Check that our engine could do what is asked.

    Raises:
        Refusal: ``unknown_model`` or ``unsupported_sampling``, naming the parameter.
    """
    if request.model != identity.name:
        raise Refusal(
            Code.UNKNOWN_MODEL, "that model is not served here", got=request.model, expected=[identity.name]
        )
    sampling = request.sampling
    try:
        check_sampling(sampling)
        if sampling.dialect not in identity.dialects:
            raise UnsupportedSampling("dialect", sampling.dialect, " or ".join(identity.dialects))
        if sampling.max_tokens >= identity.context_length:
            raise UnsupportedSampling(
                "max_tokens",
                sampling.max_tokens,
                f"less than the model's context of {identity.context_length}",
            )
    except UnsupportedSampling as error:
        got = error.got if isinstance(error.got, str | int | float) else repr(error.got)
        raise Refusal(
            Code.UNSUPPORTED_SAMPLING, str(error), got=got, expected=f"{error.parameter}: {error.expected}"
        ) from error
