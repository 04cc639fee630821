"""One subnet of the simulated node: what the pallets keep of it, and what they refuse."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from targon.chain.bittensor.commit_hash import commit_hash
from targon.chain.rules import max_upscaled

U16_MAX = 65_535
MAX_SPACE = 3_100
SPACE_OF_AN_ANCHOR = 100


class Refusal(Exception):
    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(name)


@dataclass
class SimulatedNeuron:
    hotkey: str
    registered_at: int
    updated: int
    permit: bool = False
    axon: dict[str, int] = field(default_factory=lambda: {"block": 0, "ip": 0, "port": 0, "ip_type": 0})
    incentive: int = 0
    dividends: int = 0


@dataclass
class SimulatedSubnet:
    netuid: int
    owner: str
    newer: bool
    tempo: int
    version_key: int
    rate_limit: int
    max_uids: int
    max_validators: int
    serving_rate_limit: int = 0
    min_weights: int = 1
    max_share: int = U16_MAX
    least_stake_rao: int = 0
    commit_reveal: bool = False
    reveal_epochs: int = 1
    epoch: int = 0
    last_epoch: int = 0
    neurons: list[SimulatedNeuron] = field(default_factory=list)
    stakes: dict[str, int] = field(default_factory=dict)
    weights: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    commits: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    """By hotkey: hash and block."""
    epochs_of_commits: dict[str, int] = field(default_factory=dict)
    anchors: dict[str, dict[str, Any]] = field(default_factory=dict)
    space: dict[tuple[str, int], int] = field(default_factory=dict)

    # blocks and epochs

    def on_block(self, block: int) -> None:
        if self.newer:
            if block >= self.last_epoch + self.tempo:
                self.epoch, self.last_epoch = self.epoch + 1, block
                self.run_epoch()
        elif self.epoch_at(block) != self.epoch:
            self.epoch = self.epoch_at(block)
            self.run_epoch()

    def epoch_at(self, block: int) -> int:
        return (block + self.netuid + 1) // (self.tempo + 1)

    def run_epoch(self) -> None:
        """Permits by stake; incentive by weights, dividends by stake: enough of Yuma for one of each."""
        ranked = sorted(self.neurons, key=lambda each: -self.stakes.get(each.hotkey, 0))[
            : self.max_validators
        ]
        earned = [0.0] * len(self.neurons)
        paying = [0.0] * len(self.neurons)
        for uid, neuron in enumerate(self.neurons):
            stake = self.stakes.get(neuron.hotkey, 0)
            neuron.permit = stake > 0 and neuron in ranked
            row = [(to, value) for to, value in self.weights.get(uid, []) if self._counts(neuron, to)]
            if neuron.permit and row:
                paying[uid] = stake
                for target, value in row:
                    earned[target] += stake * value / sum(value for _, value in row)
        for uid, neuron in enumerate(self.neurons):
            neuron.incentive = round(U16_MAX * earned[uid] / sum(earned)) if sum(earned) else 0
            neuron.dividends = round(U16_MAX * paying[uid] / sum(paying)) if sum(paying) else 0

    def _counts(self, setter: SimulatedNeuron, target: int) -> bool:
        return setter.updated > self.neurons[target].registered_at

    # what a test sets up

    def register(self, hotkey: str, block: int) -> int:
        held = self.uid_of(hotkey)
        if held is not None:
            return held
        newcomer = SimulatedNeuron(hotkey, registered_at=block, updated=block)
        if len(self.neurons) < self.max_uids:
            self.neurons.append(newcomer)
            return len(self.neurons) - 1
        uid = min(
            (uid for uid, neuron in enumerate(self.neurons) if neuron.hotkey != self.owner),
            key=lambda uid: (self.neurons[uid].incentive + self.neurons[uid].dividends, uid),
        )
        # the older runtime keeps what was said of the neuron before, and when it was last heard of
        newcomer.updated = self.neurons[uid].updated
        self.neurons[uid] = newcomer
        return uid

    def uid_of(self, hotkey: str) -> int | None:
        return next((uid for uid, neuron in enumerate(self.neurons) if neuron.hotkey == hotkey), None)

    # calls

    def check_pool(self, hotkey: str, function: str, params: Mapping[str, Any]) -> None:
        if function == "serve_axon" and params["ip"] == int(ipaddress.IPv4Address("127.0.0.1")):
            raise Refusal("InvalidIpAddress")
        if "weights" in function and self.stakes.get(hotkey, 0) < self.least_stake_rao:
            raise Refusal("StakeAmountTooLow")

    def dispatch(self, block: int, hotkey: str, function: str, params: Mapping[str, Any]) -> None:
        kind = function.replace("_mechanism", "")
        uid = self.uid_of(hotkey)
        if uid is None:
            raise Refusal(
                "AccountNotAllowedCommit" if kind == "set_commitment" else "HotKeyNotRegisteredInSubNet"
            )
        if kind == "set_weights":
            if self.commit_reveal:
                raise Refusal("CommitRevealEnabled")
            self._check_pace(block, uid, "SettingWeightsTooFast")
            self._put_weights(uid, params["dests"], params["weights"], params["version_key"])
            self.neurons[uid].updated = block
        elif kind == "commit_weights":
            self._commit(block, hotkey, uid, params["commit_hash"])
        elif kind == "reveal_weights":
            self._reveal(hotkey, uid, params)
        elif kind == "serve_axon":
            self._serve(block, uid, params)
        else:
            self._anchor(block, hotkey, params["info"])

    def _check_pace(self, block: int, uid: int, name: str) -> None:
        if self.neurons[uid].updated and block - self.neurons[uid].updated < self.rate_limit:
            raise Refusal(name)

    def _put_weights(self, uid: int, dests: list[int], values: list[int], version_key: int) -> None:
        if len(dests) > len(self.neurons):
            raise Refusal("UidsLengthExceedUidsInSubNet")
        if version_key < self.version_key:
            raise Refusal("IncorrectWeightVersionKey")
        if not self.neurons[uid].permit and dests != [uid]:
            raise Refusal("NeuronNoValidatorPermit")
        if any(dest >= len(self.neurons) for dest in dests):
            raise Refusal("UidVecContainInvalidOne")
        if len(dests) < self.min_weights:
            raise Refusal("WeightVecLengthIsLow")
        if max(values) * U16_MAX > self.max_share * sum(values):
            raise Refusal("MaxWeightExceeded")
        self.weights[uid] = list(max_upscaled(dict(zip(dests, values, strict=True))).items())

    def _commit(self, block: int, hotkey: str, uid: int, digest: str) -> None:
        if not self.commit_reveal:
            raise Refusal("CommitRevealDisabled")
        self._check_pace(block, uid, "CommittingWeightsTooFast")
        waiting = [entry for entry in self.commits.get(hotkey, []) if not self._expired(entry[0])]
        if len(waiting) >= 10:
            raise Refusal("TooManyUnrevealedCommits")
        self.commits[hotkey] = [*waiting, (digest, block)]
        self.epochs_of_commits[digest] = self.epoch
        self.neurons[uid].updated = block

    def _expired(self, digest: str) -> bool:
        return self.epoch > self.epochs_of_commits[digest] + self.reveal_epochs

    def _reveal(self, hotkey: str, uid: int, params: Mapping[str, Any]) -> None:
        if not self.commit_reveal:
            raise Refusal("CommitRevealDisabled")
        commits = self.commits.get(hotkey, [])
        if not commits:
            raise Refusal("NoWeightsCommitFound")
        salt = b"".join(word.to_bytes(2, "big") for word in params["salt"])
        weights = dict(zip(params["uids"], params["values"], strict=True))
        digest = "0x" + commit_hash(hotkey, self.netuid, weights, params["version_key"], salt)  # type: ignore[arg-type]
        found = next((place for place, entry in enumerate(commits) if entry[0] == digest), None)
        if found is None:
            raise Refusal("InvalidRevealCommitHashNotMatch")
        if self._expired(digest):
            raise Refusal("ExpiredWeightCommit")
        if self.epoch != self.epochs_of_commits[digest] + self.reveal_epochs:
            raise Refusal("RevealTooEarly")
        self._put_weights(uid, params["uids"], params["values"], params["version_key"])
        self.commits[hotkey] = commits[found + 1 :]

    def _serve(self, block: int, uid: int, params: Mapping[str, Any]) -> None:
        axon = self.neurons[uid].axon
        if axon["block"] and block - axon["block"] < self.serving_rate_limit:
            raise Refusal("ServingRateLimitExceeded")
        if params["ip_type"] == 4 and ipaddress.IPv4Address(params["ip"]) == ipaddress.IPv4Address(
            "127.0.0.1"
        ):
            raise Refusal("InvalidIpAddress")
        self.neurons[uid].axon = {
            "block": block,
            **{name: params[name] for name in ("ip", "port", "ip_type")},
        }

    def _anchor(self, block: int, hotkey: str, info: Mapping[str, Any]) -> None:
        used = self.space.get((hotkey, self.epoch), 0)
        if used + SPACE_OF_AN_ANCHOR > MAX_SPACE:
            raise Refusal("SpaceLimitExceeded")
        self.space[hotkey, self.epoch] = used + SPACE_OF_AN_ANCHOR
        self.anchors[hotkey] = {"deposit": 0, "block": block, "info": {"fields": [info["fields"]]}}

    # what is asked

    def storage(self, item: str, params: Sequence[Any], *, newer: bool) -> Callable[[], Any] | None:
        """How to read an item; None where this runtime has no such item."""
        kept: dict[str, Callable[[], Any]] = {
            "Uids": lambda: self.uid_of(params[0]),
            "Weights": lambda: self.weights.get(params[0], []),
            "WeightCommits": lambda: self._commits_as_kept(params[0]),
            "RevealPeriodEpochs": lambda: self.reveal_epochs,
            "Tempo": lambda: self.tempo,
            "CommitmentOf": lambda: self.anchors.get(params[0]),
        }
        if newer:
            kept["SubnetEpochIndex"] = lambda: self.epoch
            kept["LastEpochBlock"] = lambda: self.last_epoch
            kept["PendingEpochAt"] = lambda: 0
        return kept.get(item)

    def _commits_as_kept(self, hotkey: str) -> list[tuple[str, int, int, int]] | None:
        commits = self.commits.get(hotkey)
        if not commits:
            return None
        if self.newer:
            return [(digest, self.epochs_of_commits[digest], block, 0) for digest, block in commits]
        return [(digest, block, 0, 0) for digest, block in commits]

    def metagraph(self, block: int) -> dict[str, Any]:
        return {
            "block": block,
            "owner_hotkey": self.owner,
            "tempo": self.tempo,
            "weights_version": self.version_key,
            "weights_rate_limit": self.rate_limit,
            "serving_rate_limit": self.serving_rate_limit,
            "commit_reveal_weights_enabled": self.commit_reveal,
            "commit_reveal_period": self.reveal_epochs,
            "min_allowed_weights": self.min_weights,
            "max_weights_limit": self.max_share,
            "max_validators": self.max_validators,
            "hotkeys": [neuron.hotkey for neuron in self.neurons],
            "block_at_registration": [neuron.registered_at for neuron in self.neurons],
            "last_update": [neuron.updated for neuron in self.neurons],
            "total_stake": [self.stakes.get(neuron.hotkey, 0) for neuron in self.neurons],
            "validator_permit": [neuron.permit for neuron in self.neurons],
            "axons": [neuron.axon for neuron in self.neurons],
            "incentives": [neuron.incentive for neuron in self.neurons],
            "dividends": [neuron.dividends for neuron in self.neurons],
        }
