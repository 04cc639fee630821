"""What can go wrong with updates.

UpdateError
├── CannotUpdate         at the start: updates were asked for and can't be had here
│   ├── NotACheckout     this software was not started from a git checkout
│   ├── NotLaunched      it was not started by the launcher
│   ├── BadUpdateSettings  settings that can't be
│   └── CheckoutInUse    another neuron updates this checkout
├── WorkTreeRefused      the checkout is not in a state that an update may replace
├── GitFailed            a git command failed, or took too long
└── StepFailed           setting up, or checking, the new version failed
"""

from __future__ import annotations


class UpdateError(Exception):
    """Anything that keeps this software from being updated."""


class CannotUpdate(UpdateError):
    """Updates were asked for and can't be had here; the message says why, and what to do."""


class NotACheckout(CannotUpdate):
    """This software was not started from a git checkout."""

    def __init__(self, program: str, why: str) -> None:
        super().__init__(
            f"automatic updates need a git checkout, and {program} is not of one ({why}). Installed from a package, "
            "it is upgraded by pip install --upgrade; turn automatic updates off"
        )


class NotLaunched(CannotUpdate):
    """The neuron was not started by the launcher, so that nothing could take back an update that failed."""


class BadUpdateSettings(CannotUpdate):
    """Settings that can't be."""


class CheckoutInUse(CannotUpdate):
    """Another neuron updates this checkout."""


class WorkTreeRefused(UpdateError):
    """The checkout is not in a state that an update may replace."""


class GitFailed(UpdateError):
    """A git command failed, or took too long."""


class StepFailed(UpdateError):
    """Setting up, or checking, the new version failed."""
