"""Calls that block, beside the event loop."""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


async def aside(work: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
    """What `work` returns or raises, in a thread of its own; cancelled, the thread goes on to its end unheard.

    Not asyncio.to_thread: its few threads are shared with the whole program, and paused jobs would hold them all.
    """
    return await begun_aside(work, *args, **kwargs)


def begun_aside(
    work: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> asyncio.Future[Result]:
    """The same as a future. No task: asyncio.run cancels all tasks at its end, this one's outcome must be heard."""
    loop, context = asyncio.get_running_loop(), contextvars.copy_context()
    done: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: BaseException | None) -> None:
        if done.done():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # without an error there is a result

    def run() -> None:
        result, error = None, None
        try:
            result = context.run(work, *args, **kwargs)
        except BaseException as raised:  # noqa: BLE001 - raised again where it is awaited
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop was closed, nobody waits
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="actorstate-aside", daemon=True).start()
    return done


async def to_its_end(work: asyncio.Future[Result]) -> Result:
    """Its result, even if the task is cancelled meanwhile; the cancellation is raised afterwards."""
    cancelled = None
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        work.exception()  # looked at: the cancellation is raised in its place
        raise cancelled
    return work.result()
