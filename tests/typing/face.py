"""What type checkers make of the client's methods: read by `test_typing.py`, never run."""

from typing import assert_type

import actorstate
from actorstate.core.messages.replies import WriterState


def blocking(client: actorstate.Client) -> None:
    """Results, iterators and blocks."""
    assert_type(client.get("job", timeout_s=2), actorstate.JobState)
    assert_type(client.get_if_newer("job", 3), actorstate.JobState | None)
    assert_type(client.ask(), WriterState)
    for state in client.watch("job"):
        assert_type(state, actorstate.JobState)
    with client.run("job", total=3) as run, client.attach("job") as attached:
        assert_type(run, actorstate.Run)
        assert_type(attached, actorstate.Run)
    with client.mirror(["job"]) as mirror:
        assert_type(mirror.get("job", at_least=(1, 3)), actorstate.JobState)
        assert_type(mirror.jobs(status="running"), list[actorstate.JobState])


async def asynchronous(client: actorstate.AsyncClient) -> None:
    """The same, to be awaited."""
    assert_type(await client.get("job", timeout_s=2), actorstate.JobState)
    assert_type(await client.ask(), WriterState)
    async for state in client.watch("job"):
        assert_type(state, actorstate.JobState)
    async with client.run("job", total=3) as run:
        async for row in run.track([1, 2], key=str):
            assert_type(row, int)
        assert_type(await run.checkpoint({"after": 1}), None)
    async with client.mirror() as mirror:
        assert_type(await mirror.get("job", at_least=3), actorstate.JobState)
    async with actorstate.connect_async("data/jobs") as other:
        assert_type(other, actorstate.AsyncClient)


def wrong(client: actorstate.Client) -> None:
    """Each of these lines is an error."""
    client.get(1)
    client.get("job", timeout=2)
    client.wait("job")
    client.nothing()
    for _ in actorstate.connect_async("data/jobs").watch("job"):
        pass
