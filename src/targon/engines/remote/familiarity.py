"""Whether an engine is still the one that was probed.

It is somebody else's process: it may be started again at any time, with another model, in another number format, or
without the plugin, under the same address and name. So it is asked again what it was asked at first, before the next
task, after it failed, and after it was idle for so long that it may have been started again unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import anyio

from targon.engines.errors import EngineUnavailable
from targon.engines.remote.backend import Backend
from targon.engines.remote.capabilities import Capabilities
from targon.engines.remote.folder import ModelFolder
from targon.engines.remote.probing import difference_since

IDLE_S: Final = 30.0
"""Seconds without an answer after which an engine may be another. Loading a model takes about as long."""


class Familiarity:
    """Remembers when an engine last answered as it should.

    Args:
        monotonic_s: the clock.
    """

    def __init__(
        self, backend: Backend, folder: ModelFolder, before: Capabilities, monotonic_s: Callable[[], float]
    ) -> None:
        self._backend = backend
        self._folder = folder
        self._before = before
        self._monotonic_s = monotonic_s
        self._known_s: float | None = monotonic_s()
        self._asking = anyio.Lock()

    def answered(self) -> None:
        """It answered, and nothing was wrong."""
        if self._known_s is not None:
            self._known_s = self._monotonic_s()

    def failed(self) -> None:
        """It failed: whoever answers next may be another."""
        self._known_s = None

    async def ensure(self) -> None:
        """Ask again, if it is time to.

        Raises:
            EngineUnavailable: if it fails, or is another. It is asked again for the next task.
        """
        if self._known():
            return
        async with self._asking:
            if self._known():
                return
            other = await difference_since(self._backend, self._folder, self._before)
            if other is not None:
                raise EngineUnavailable(
                    f"engine {self._before.served.engine}: another engine answers there now: {other}; start it again "
                    "as it was, or start this process again"
                )
            self._known_s = self._monotonic_s()

    def _known(self) -> bool:
        return self._known_s is not None and self._monotonic_s() - self._known_s < IDLE_S
