"""The loop: it owns every socket of the writer, and every actor.

    wait      until a request, a finished commit, a signal or a timer
    receive   reads are answered at once from committed bytes; changes go into mailboxes
    commit    what waited, by the law (`commit.py`); replies and the change feed follow it

One reply frame a client a commit. The loop never forks and never sleeps.
"""

import os
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime

import zmq

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.core import codec
from actorstate.core.actor import Actor, Envelope
from actorstate.core.messages.replies import Applied, JobChanged, Reply
from actorstate.core.messages.requests import Attach, ChangeRequest, Request
from actorstate.core.rate import Now
from actorstate.endpoint import boot_id
from actorstate.errors import ActorStateError, BadMessage, Busy
from actorstate.store.contract import Store
from actorstate.writer.answers import Answers, refusal
from actorstate.writer.commit import Batch, Committer
from actorstate.writer.liveness import Liveness
from actorstate.writer.residents import Residents

TICK_S = 1.0
"""How often health is judged, idle actors leave, and the watchdog is told."""
SEND_HWM = 1_000
"""Unread frames of one client; further ones are dropped and counted, its resends bring new ones."""
CLOSE_LINGER_MS = 500


class Server:
    """The writer's sockets and loop. `check` is called before each commit and raises when the lock was lost."""

    def __init__(self, store: Store, epoch: int, settings: WriterSettings, check: Callable[[], None]) -> None:
        self._epoch, self._settings, self._check = epoch, settings, check
        self._boot = boot_id()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._residents = Residents(store, settings)
        self._committer = Committer(store, epoch, settings, self._poke)
        self._liveness = Liveness(settings)
        self._answers = Answers(store, self._residents, self._liveness, self._committer, settings)
        self._outbox: dict[bytes, list[Reply]] = defaultdict(list)
        self._sequence = 0
        self._stop_by: float | None = None
        self._next_tick = 0.0
        self._last_commit = 0.0
        self.on_tick: Callable[[float], None] = lambda _last_commit: None

    @property
    def wake_descriptor(self) -> int:
        """Writing a byte here wakes the loop; safe in signal handlers and other threads."""
        return self._wake

    def bind(self, requests: str, changes: str) -> None:
        """Opens both sockets. The lock must be held: a second bind on an ipc path would steal it silently."""
        self._context = zmq.Context(io_threads=1)
        self._router = self._context.socket(zmq.ROUTER)
        self._router.setsockopt(zmq.ROUTER_MANDATORY, 1)
        self._router.setsockopt(zmq.SNDHWM, SEND_HWM)
        self._router.setsockopt(zmq.MAXMSGSIZE, self._settings.max_frame_bytes)
        self._feed = self._context.socket(zmq.XPUB)
        for socket, address in ((self._router, requests), (self._feed, changes)):
            socket.setsockopt(zmq.LINGER, CLOSE_LINGER_MS)
            socket.bind(address)
        self._poller = zmq.Poller()
        for source in (self._router, self._feed, self._woken):
            self._poller.register(source, zmq.POLLIN)

    def recover(self) -> None:
        """Takes up the workers of unfinished jobs; their beats start now. A damaged job is reported and left."""
        monotonic = time.monotonic()
        for job in self._residents.attached_jobs():
            try:
                actor = self._residents.find(job, monotonic)
            except ActorStateError as error:
                telemetry.event("recovery.failed", job=job, error=error)
                continue
            self._liveness.follow(job, actor.document, monotonic)

    def stop(self) -> None:
        """Ends the loop once all that was accepted is committed and answered."""
        self._stop_by = time.monotonic() + self._settings.drain_s
        self._poke()

    def run(self) -> None:
        """Serves until `stop`. Raises StoreFailed or EpochFenced when this writer must not go on."""
        while not self._drained():
            self._wait()
            self._receive()
            if time.monotonic() >= self._next_tick:
                self._tick()
            self._commit()
            self._send()

    def close(self) -> None:
        """Ends the commit thread and the sockets, waiting a bounded time for unsent replies."""
        self._committer.close()
        self._router.close()
        self._feed.close()
        self._context.term()
        os.close(self._woken)
        os.close(self._wake)

    def _drained(self) -> bool:
        if self._stop_by is None:
            return False
        busy = self._committer.under_way is not None or self._residents.waiting
        if busy and time.monotonic() > self._stop_by:
            telemetry.event("writer.drain_failed", waiting=self._residents.waiting)
            return True
        return not busy

    def _poke(self) -> None:
        os.write(self._wake, b"c")

    def _wait(self) -> None:
        ready = self._residents.waiting and self._committer.under_way is None
        until = min(self._next_tick, self._answers.next_expiry())
        timeout_ms = 0 if ready else max(0, int((until - time.monotonic()) * 1000) + 1)
        events = dict(self._poller.poll(timeout_ms))
        if self._woken in events:
            os.read(self._woken, 4096)
        while self._feed.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            self._feed.recv()

    def _receive(self) -> None:
        for _ in range(self._settings.max_drain):
            if not self._router.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                return
            client, frame = self._router.recv(), b""
            extra = 0
            while self._router.getsockopt(zmq.RCVMORE):
                frame = self._router.recv()
                extra += 1
            self._handle(client, frame, whole=extra == 1)

    def _handle(self, client: bytes, frame: bytes, *, whole: bool) -> None:
        number = 0
        try:
            if not whole:
                raise BadMessage("a request is one frame")
            request = codec.decode_request(frame)
            number = request.id
            if self._expired(request):
                self._answers.statistics.expired += 1
                return
            self._dispatch(client, request)
        except ActorStateError as error:
            self._refuse(client, number, error)

    def _expired(self, request: Request) -> bool:
        """Only a request of this boot can have expired on its way; for others the time counts from arrival."""
        return request.boot == self._boot and 0 < request.expires_at < time.monotonic()

    def _dispatch(self, client: bytes, request: Request) -> None:
        body = request.body
        if isinstance(body, ChangeRequest):
            self._accept(client, request, body)
            return
        answer = self._answers.read(client, request)
        if answer is not None:
            self._outbox[client].append(Reply(request.id, self._epoch, answer, self._answers.intent(body)))

    def _accept(self, client: bytes, request: Request, body: ChangeRequest) -> None:
        if self._stop_by is not None:
            raise Busy("the writer is stopping", retry_after_s=0.2)
        monotonic = time.monotonic()
        actor = self._residents.find_or_new(body.job, monotonic)
        if isinstance(body, Attach):
            self._judge(actor, monotonic)
        self._residents.post(actor, Envelope(request, client))

    def _judge(self, actor: Actor, monotonic: float) -> None:
        if actor.document is not None:
            for judged in self._liveness.findings(actor.document, monotonic):
                self._residents.post(actor, Envelope(judged))

    def _tick(self) -> None:
        monotonic = time.monotonic()
        self._next_tick = monotonic + TICK_S
        for job in self._liveness.jobs():
            actor = self._residents.peek(job)
            if actor is not None and not actor.mailbox:
                self._judge(actor, monotonic)
        self._residents.evict(monotonic)
        if self._committer.under_way is None:
            self.on_tick(self._last_commit)

    def probe(self) -> None:
        """Shows that the disk still takes a commit, for a watchdog when nothing else was committed."""
        self._check()
        self._committer.probe()

    def _commit(self) -> None:
        done = self._committer.finished()
        if done is not None:
            self._settle(done)
        if self._committer.under_way is None and self._residents.waiting:
            self._check()
            batch = self._committer.gather(self._residents, Now(datetime.now(UTC), time.monotonic()))
            stored = self._committer.store(batch)
            if stored is not None:
                self._settle(stored)
        for waiter, answer in self._answers.due(time.monotonic()):
            self._outbox[waiter.client].append(Reply(waiter.id, self._epoch, answer))

    def _settle(self, batch: Batch) -> None:
        outcomes = self._committer.settle(batch, self._residents)
        monotonic = self._last_commit = time.monotonic()
        if batch.error is None:
            for actor in batch.actors:
                self._liveness.follow(actor.job, actor.document, monotonic)
                self._publish(actor)
        for envelope, actor, answer in outcomes:
            self._answer(envelope, actor, answer, monotonic)

    def _answer(self, envelope: Envelope, actor: Actor, answer: Applied | ActorStateError, monotonic: float) -> None:
        if not isinstance(envelope.request, Request):
            return
        number, body = envelope.request.id, envelope.request.body
        if isinstance(answer, ActorStateError):
            self._refuse(envelope.reply_to, number, answer)
            return
        self._answers.note(body, monotonic)
        self._outbox[envelope.reply_to].append(Reply(number, self._epoch, answer, actor.intent()))

    def _publish(self, actor: Actor) -> None:
        self._sequence += 1
        changed = JobChanged(self._epoch, self._sequence, actor.job, actor.revision)
        self._feed.send(actor.job.encode() + b"\0", zmq.SNDMORE)
        self._feed.send(codec.encode(changed))
        self._answers.changed(actor.job)

    def _refuse(self, client: bytes, number: int, error: ActorStateError) -> None:
        self._answers.statistics.refusals[error.code] += 1
        self._outbox[client].append(Reply(number, self._epoch, refusal(error)))

    def _send(self) -> None:
        for client, replies in self._outbox.items():
            try:
                self._router.send(client, zmq.SNDMORE | zmq.NOBLOCK)
                self._router.send(codec.encode(replies), zmq.NOBLOCK)
            except zmq.ZMQError as error:  # gone (EHOSTUNREACH) or not reading (EAGAIN): its resend asks again
                self._answers.statistics.undelivered += 1
                telemetry.event("reply.undelivered", errno=error.errno, replies=len(replies))
        self._outbox.clear()
