"""Telling pages of what a run has grown: server-sent events, from one look at the store for all who listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor

from colordim.errors import ColordimError
from colordim.web.answers import to_json
from colordim.web.catalogue import FRESH, OpenRun

__all__ = ["MOST_SUBSCRIBERS", "Broadcast", "FullError"]

#: Who may listen at a time, to all runs together.
MOST_SUBSCRIBERS = 32
#: Seconds after which a comment says that the connection still stands, so that proxies keep it.
HEARTBEAT = 15.0


class FullError(Exception):
    """There are too many who listen."""


class _Channel:
    """The newest state of one run, and who waits for the next."""

    def __init__(self) -> None:
        self.listeners = 0
        self.number = 0
        self.event = b""
        self.last = False
        self.changed = asyncio.Condition()
        self.task: asyncio.Task[None] | None = None

    async def newer(self, seen: int) -> bool:
        """Wait for another state than this; return False if there is none for a while."""
        try:
            async with asyncio.timeout(HEARTBEAT), self.changed:
                await self.changed.wait_for(lambda: self.number != seen)
        except TimeoutError:
            return False
        return True

    async def tell(self, event: bytes, last: bool) -> None:
        async with self.changed:
            self.event, self.last, self.number = event, last, self.number + 1
            self.changed.notify_all()


class Broadcast:
    """The runs that somebody listens to.

    Parameters
    ----------
    executor : Executor
        Whose threads look at the store.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._channels: dict[OpenRun, _Channel] = {}
        self._listeners = 0
        self._stopped = False

    async def stop(self) -> None:
        """End all streams."""
        self._stopped = True
        for channel in [*self._channels.values()]:
            await channel.tell(b"", last=True)

    def subscribe(self, run: OpenRun) -> AsyncIterator[bytes]:
        """Return the events of a run as they are sent: ``growth`` at once and whenever it has grown, until it ends.

        ``gone`` with a sentence is the last one if the run can no longer be read.

        Raises
        ------
        FullError
            If :data:`MOST_SUBSCRIBERS` listen already.
        """
        if self._listeners >= MOST_SUBSCRIBERS or self._stopped:
            raise FullError
        return self._events(run)

    async def _events(self, run: OpenRun) -> AsyncIterator[bytes]:
        if self._listeners >= MOST_SUBSCRIBERS:  # others may have begun meanwhile
            yield _event("gone", to_json({"error": "too many pages listen: close some."}))
            return
        channel = self._channels.setdefault(run, _Channel())
        self._listeners += 1
        channel.listeners += 1
        try:
            if channel.task is None:
                channel.task = asyncio.get_running_loop().create_task(self._poll(run, channel))
            seen = 0
            while True:
                if not await channel.newer(seen):
                    yield b": still here\n\n"
                    continue
                seen, last = channel.number, channel.last
                if channel.event:
                    yield channel.event
                if last:
                    return
        finally:
            self._listeners -= 1
            channel.listeners -= 1
            if channel.listeners == 0:
                if self._channels.get(run) is channel:
                    del self._channels[run]
                if channel.task is not None:
                    channel.task.cancel()

    async def _poll(self, run: OpenRun, channel: _Channel) -> None:
        """Look at the store until the run ends."""
        seen: object = None
        loop = asyncio.get_running_loop()
        while not channel.last:
            try:
                found = await loop.run_in_executor(self._executor, run.grown, seen)
            except ColordimError as error:
                await channel.tell(_event("gone", to_json({"error": str(error)})), last=True)
                return
            if found is not None:
                seen, growth, ended = found
                await channel.tell(_event("growth", growth), last=ended)
            await asyncio.sleep(FRESH)


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)
