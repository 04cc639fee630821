"""The options of ``targon prover``."""

from __future__ import annotations

from targon.cli.options import AxonOptions, Options, RoleOptions, TgiOptions


class BlacklistOptions(Options):
    """Whom to serve."""

    force_verifier_permit: bool = False
    """Serve only callers with a validator permit."""
    allow_non_registered: bool = False
    """Serve callers that are not registered on the subnet, too."""


class ProverNeuronOptions(TgiOptions):
    """How the prover runs its model."""

    name: str = "prover"
    """What this process calls itself in its log lines and metrics."""


class ProverOptions(RoleOptions):
    """Serve a model to verifiers."""

    axon: AxonOptions = AxonOptions()
    blacklist: BlacklistOptions = BlacklistOptions()
    neuron: ProverNeuronOptions = ProverNeuronOptions()
