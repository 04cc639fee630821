"""Updates: a neuron that runs from a git checkout replaces itself by newer releases, if its operator asks for it.

A release is a tag that a key of the operator's file has signed, or the one object that the operator pinned; nothing
else that a remote says is believed, and nothing that it sends is run before that. An update that fails, at whatever
step, is taken back, and a neuron that was serving serves again. What to install is decided apart from doing it
(:mod:`~targon.updates.decide`); going back is left to a launcher that needs nothing of what is replaced
(:mod:`~targon.updates.launcher`). Nothing here knows what the neuron does: it is told how to drain it, and whether
it is healthy.
"""

from targon.updates.decide import Decision, Refusal, Release, Situation, Target, decide
from targon.updates.errors import (
    BadUpdateSettings,
    CannotUpdate,
    CheckoutInUse,
    GitFailed,
    NotACheckout,
    NotLaunched,
    StepFailed,
    UpdateError,
    WorkTreeRefused,
)
from targon.updates.settings import UpdateDeadlines, UpdateSettings
from targon.updates.updater import Plan, Step, Updater, restart
from targon.updates.versions import Channel, Version, parse_tag

__all__ = [
    "BadUpdateSettings",
    "CannotUpdate",
    "Channel",
    "CheckoutInUse",
    "Decision",
    "GitFailed",
    "NotACheckout",
    "NotLaunched",
    "Plan",
    "Refusal",
    "Release",
    "Situation",
    "Step",
    "StepFailed",
    "Target",
    "UpdateDeadlines",
    "UpdateError",
    "UpdateSettings",
    "Updater",
    "Version",
    "WorkTreeRefused",
    "decide",
    "parse_tag",
    "restart",
]
