"""The thread of a blocking client's mirror: an event loop in which a follower keeps the copy."""

import asyncio
import contextlib
import threading

from actorstate.client.aio.transport import AsyncTransport
from actorstate.client.mirror.copy import Copying
from actorstate.client.mirror.follow import Follower
from actorstate.client.sync.pool import Transport


def keep(copying: Copying, transport: Transport) -> None:
    """Starts the thread; `copying.stop` ends it."""
    ready = threading.Event()

    async def follow() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        aside = AsyncTransport(transport)

        def stop() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(task.cancel if task else loop.stop)

        copying.stop = stop
        ready.set()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await Follower(aside, copying.copy, copying.whole.set).follow()
        finally:
            aside.close_channels()

    copying.thread = threading.Thread(target=lambda: asyncio.run(follow()), name="actorstate-mirror", daemon=True)
    copying.thread.start()
    ready.wait()
