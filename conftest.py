"""What every suite shares, whatever folder it lies in."""

from __future__ import annotations

import inspect
from collections.abc import Generator

import pytest
from hypothesis import settings
from sniffio import current_async_library_cvar

# How long an example takes is the machine's affair, and that of whatever else runs on it: no test is timed.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is not async may start a loop of its own, though fixtures that others share keep one: sniffio, which
    OpenAI's client brings, would say that one is running."""
    if inspect.iscoroutinefunction(getattr(item, "function", None)):
        return (yield)
    token = current_async_library_cvar.set(None)
    try:
        return (yield)
    finally:
        current_async_library_cvar.reset(token)
