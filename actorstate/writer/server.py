"""The loop: it owns every socket of the writer, and every actor.

    wait      until a request, a finished commit, a signal or a timer
    receive   reads are answered at once from committed bytes; changes go into mailboxes
    commit    what waited, by the law (`commit.py`); replies and the change feed follow it

One reply frame a client a commit. The loop never forks and never sleeps.
"""

import contextlib
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import zmq

from actorstate import telemetry
from actorstate.config import WriterSettings
from actorstate.core import codec
from actorstate.core.actor import Actor, Envelope
from actorstate.core.messages.document import NOTHING
from actorstate.core.messages.replies import Answer, Found, ItemsListed, JobsChanged, Listed, Reply, size_of
from actorstate.core.messages.requests import (
    Attach,
    CreateJob,
    Heartbeat,
    ReadRequest,
    Recalling,
    Request,
    expiring,
)
from actorstate.core.rate import Now
from actorstate.endpoint import boot_id
from actorstate.errors import ActorStateError, BadMessage, Busy, DiskFull, EpochFenced
from actorstate.store.contract import Store
from actorstate.writer.about import About
from actorstate.writer.answers import Answers, refusal
from actorstate.writer.commit import Batch, Committer
from actorstate.writer.expiry import Expiry
from actorstate.writer.liveness import Liveness, excuse, follow, is_worked_on
from actorstate.writer.meter import Meter
from actorstate.writer.past import Past
from actorstate.writer.residents import Residents
from actorstate.writer.retention import Retention

TICK_S = 1.0
"""How often health is judged, idle actors leave, and the watchdog is told."""
ABSENT_S = 1.0
"""A turn of the loop that takes this much longer than a tick: the writer was not there, and says so."""
SEND_HWM = 32
"""Unread frames of one client; further ones are dropped and counted, its resends bring new ones."""
MAX_REPLY_BYTES = 1024 * 1024
"""Documents for one client in one frame; further reads get `Busy`."""
MAX_SUBSCRIPTION_BYTES = 1_024
FEED_HWM = 1_000
"""Commits that a subscriber may be behind; further ones are dropped for it, and it sees the gap in the sequence."""
CLOSE_LINGER_MS = 500
FIRST_REQUEST_S = 5.0
"""Idleness begins with the first request, or this long after the start: who started it shall find it."""
LOCK_LOST = "the lock file was deleted or moved; this writer may not be the only one any more"


class Server:
    """The writer's sockets and loop. `lock` is the descriptor of the lock file that this process holds."""

    def __init__(self, store: Store, epoch: int, settings: WriterSettings, lock: int, *, meter: Meter) -> None:
        self._meter = meter
        self._store, self._epoch, self._settings, self._lock = store, epoch, settings, lock
        self._boot = boot_id()
        self._lock_name = Path(f"/proc/self/fd/{lock}").readlink()
        self._woken, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._residents = Residents(store, settings)
        self._committer = Committer(store, epoch, settings, self._poke, meter=meter)
        self._liveness = Liveness(settings)
        self._expiry = Expiry(store, self._residents)
        about = About(store, self._residents, self._committer, epoch=epoch, lock=lock)
        self._answers = Answers(store, self._residents, about, settings)
        self._past = Past(store, self._residents, self._committer, settings)
        self._retention = Retention(store, epoch, settings)
        self._outbox: dict[bytes, list[Reply]] = defaultdict(list)
        self._outgoing: dict[bytes, int] = defaultdict(int)
        self._sequence = 0
        self._news: dict[str, int] = {}
        self._beat_due = False
        self._stop_by: float | None = None
        self.stop_reason = ""
        self._next_tick, self._awake_at = 0.0, time.monotonic()
        self._needed_at = time.monotonic() + max(0.0, FIRST_REQUEST_S - settings.idle_exit_s)
        self._idle_exit_s = settings.idle_exit_s or math.inf
        self._topics = meter.topics
        self._last_commit = 0.0
        self._durable_at = 0.0
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
        self._feed.setsockopt(zmq.MAXMSGSIZE, MAX_SUBSCRIPTION_BYTES)
        self._feed.setsockopt(zmq.SNDHWM, FEED_HWM)
        self._feed.setsockopt(zmq.XPUB_VERBOSE, 1)  # each subscription is told, not only the first to a topic
        for socket, address in ((self._router, requests), (self._feed, changes)):
            socket.setsockopt(zmq.LINGER, CLOSE_LINGER_MS)
            socket.bind(address)
        self._poller = zmq.Poller()
        for source in (self._router, self._feed, self._woken, self._liveness.deaths.descriptor):
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
            follow(actor, monotonic)

    def stop(self, reason: str) -> None:
        """Ends the loop once all that was accepted is committed and answered."""
        self.stop_reason = reason
        self._stop_by = time.monotonic() + self._settings.drain_s
        self._poke()

    def run(self) -> bool:
        """Serves until `stop` or `idle_exit_s` without need; whether all that was accepted is committed and answered.

        What arrives after that has no answer: its sender asks the next writer, under the same number.
        Raises StoreFailed or EpochFenced when this writer must not go on.
        """
        while not self._drained():
            self._wait()
            self._receive()
            if time.monotonic() >= self._next_tick:
                self._tick()
            self._commit()
            if self._past.due and (told := self._past.step(time.monotonic())) is not None:
                self._tell(*told)
            if self._answers.waiters:
                self._answer_waiters()
            self._send()
            if self._news or self._beat_due:
                self._publish()
            if time.monotonic() >= self._needed_at + self._idle_exit_s:
                self._stop_unless_needed()
        return self._committer.under_way is None and not self._committer.waiting

    def close(self) -> None:
        """Ends the commit thread and the sockets, waiting a bounded time for unsent replies."""
        self._committer.close()
        self._liveness.deaths.close()
        self._router.close()
        self._feed.close()
        self._context.term()
        os.close(self._woken)
        os.close(self._wake)

    def _drained(self) -> bool:
        if self._stop_by is None:
            return False
        busy = self._committer.under_way is not None or self._committer.waiting or self._past.due
        if busy and time.monotonic() > self._stop_by:
            return True
        return not busy

    def _stop_unless_needed(self) -> None:
        """Nothing was asked for long: ends unless somebody works, waits for news, or listens to the feed."""
        monotonic = time.monotonic()
        if self._answers.waiters or self._topics or any(map(is_worked_on, self._residents.actors.values())):
            self._needed_at = monotonic
        elif self._stop_by is None:
            self.stop("nobody needed it")

    def _excuse_absence(self) -> None:
        """It was stopped, its machine was, or its disk hung: nobody is judged by beats that wait in the socket."""
        monotonic = time.monotonic()
        away_s, self._awake_at = monotonic - self._awake_at, monotonic
        if away_s > TICK_S + ABSENT_S:
            telemetry.event("writer.absent", seconds=round(away_s, 3))
            for actor in self._residents.actors.values():
                excuse(actor, away_s, monotonic)

    def _poke(self) -> None:
        os.write(self._wake, b"c")

    def _wait(self) -> None:
        idle = self._committer.under_way is None
        ready = (idle and (self._committer.waiting or self._retention.due)) or self._past.due
        until = min(self._next_tick, self._answers.next_expiry(), self._needed_at + self._idle_exit_s)
        timeout_ms = 0 if ready else max(0, int((until - time.monotonic()) * 1000) + 1)
        events = dict(self._poller.poll(timeout_ms))
        self._excuse_absence()
        if self._woken in events:
            os.read(self._woken, 4096)
        if self._liveness.deaths.descriptor in events:
            self._bury()
        while cast("int", self._feed.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            subscription = self._feed.recv()
            (self._topics.add if subscription[:1] == b"\1" else self._topics.discard)(subscription[1:])
            self._beat_due = bool(self._topics)

    def _receive(self) -> None:
        for _ in range(self._settings.max_drain):
            if not cast("int", self._router.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
                return
            client, frame, frames = self._router.recv(), b"", 0
            while self._router.getsockopt(zmq.RCVMORE):
                frame = self._router.recv()
                frames += 1
            try:
                if frames != 1:
                    raise BadMessage("a request is one frame")
                self._handle(client, frame)
            except ActorStateError as error:
                self._refuse(client, codec.number_in(frame) if frames == 1 else 0, error)

    def _handle(self, client: bytes, frame: bytes) -> None:
        request, now = codec.decode_request(frame), time.monotonic()
        self._needed_at = now
        expires_at = request.expires_at if request.boot == self._boot else now + (request.ttl_s or math.inf)
        if 0 < expires_at < now:
            self._meter.expired += 1
            return
        body = request.body
        self._meter.requests[type(body)] += 1
        try:
            if isinstance(body, ReadRequest | Heartbeat):
                self._read(client, request)
                return
            if self._stop_by is not None:
                raise Busy("the writer is stopping", retry_after_s=0.2)
            if isinstance(body, Recalling) and self._past.begin(client, request, body, expires_at or math.inf):
                return
            actor = self._residents.actors.get(body.job) or self._residents.find_or_new(body.job)
            if isinstance(body, Attach):
                self._judge(actor, now)
            elif isinstance(body, CreateJob):
                request = expiring(request, body, self._settings.expire_after_s)
            self._committer.post(actor, Envelope(request, client, request.id, expires_at or math.inf))
        except ActorStateError as error:
            self._refuse(client, request.id, error)

    def _read(self, client: bytes, request: Request) -> None:
        if self._outgoing[client] > MAX_REPLY_BYTES:
            raise Busy("read the replies you have asked for first", retry_after_s=0.05)
        answer = self._answers.read(client, request)
        if isinstance(answer, Found | Listed | ItemsListed):
            self._outgoing[client] += size_of(answer)
        if answer is not None:
            self._outbox[client].append(Reply(request.id, self._epoch, answer, *self._answers.order(request.body)))

    def _bury(self) -> None:
        """Processes have ended: their workers are judged at once."""
        monotonic = time.monotonic()
        for job in self._liveness.deaths.ended():
            actor = self._residents.actors.get(job)
            if actor is not None:
                with contextlib.suppress(Busy):  # judged at the next tick
                    self._judge(actor, monotonic)

    def _tell(self, client: bytes, number: int, answer: Answer | ActorStateError) -> None:
        if isinstance(answer, ActorStateError):
            self._refuse(client, number, answer)
        else:
            self._outbox[client].append(Reply(number, self._epoch, answer))

    def _judge(self, actor: Actor, monotonic: float) -> None:
        for judged in self._liveness.findings(actor, monotonic):
            self._committer.post(actor, Envelope(judged))

    def _tick(self) -> None:
        if Path(f"/proc/self/fd/{self._lock}").readlink() != self._lock_name:
            raise EpochFenced(LOCK_LOST)
        self._excuse_absence()  # which may have been since the wait
        monotonic = time.monotonic()
        self._meter.fold()
        self._beat_due = bool(self._topics)
        self._next_tick = monotonic + TICK_S
        for actor in self._residents.actors.values():
            if actor.document is not None and actor.document.workers and not actor.mailbox:
                with contextlib.suppress(Busy):  # judged at the next tick
                    self._judge(actor, monotonic)
        self._tidy(monotonic)
        self._residents.evict(monotonic)
        if self._committer.under_way is None:
            self._store.rest()
            self._retention.tick()
            if self._committer.disk_full:
                with contextlib.suppress(DiskFull):  # told once, and asked again at the next tick
                    self._committer.probe()
            self.on_tick(self._last_commit)

    def _tidy(self, monotonic: float) -> None:
        """No descriptor for a worker that has left; no job beyond its time, while nobody waits for the disk."""
        for job in self._liveness.deaths.jobs:
            actor = self._residents.actors.get(job)
            if actor is None:
                self._liveness.deaths.follow(job, {})
            else:
                self._liveness.watch(actor)
        if self._committer.waiting or self._stop_by is not None:
            return
        for actor, expired in self._expiry.due(Now(datetime.now(UTC), monotonic)):
            self._committer.post(actor, Envelope(expired))

    def probe(self) -> None:
        """Shows that the disk still takes a commit, for a watchdog when nothing else was committed."""
        self._committer.probe()

    def _commit(self) -> None:
        committer = self._committer
        done = committer.finished()
        if done is not None:
            self._settle(done)
        if self._retention.due and committer.under_way is None:
            self._retention.step()
        if committer.waiting and committer.under_way is None:
            if not os.fstat(self._lock).st_nlink:
                raise EpochFenced(LOCK_LOST)
            self._meter.most_waiting = max(self._meter.most_waiting, committer.waiting)
            batch = committer.gather(Now(datetime.now(UTC), time.monotonic()))
            if batch.parts and committer.beside:
                committer.hand_over(batch)
                return
            if batch.parts:
                committer.carry_out(batch)
            self._settle(batch)

    def _settle(self, batch: Batch) -> None:
        outcomes = self._committer.settle(batch, self._residents)
        self._last_commit = time.monotonic()
        framed = [part for part in batch.parts if part.keyframe is not None]
        if framed and batch.error is None:
            self._retention.note(framed)
        for envelope, actor, answer in outcomes:
            if isinstance(answer, ActorStateError):
                self._refuse(envelope.reply_to, envelope.number, answer)
            elif envelope.reply_to:
                request, told = envelope.request, actor.document
                if isinstance(request, Request) and isinstance(request.body, Attach):
                    self._liveness.watch(actor)
                plain = told is None or not (told.control or told.approvals or told.throttle)
                order = NOTHING if plain else actor.order()
                self._outbox[envelope.reply_to].append(Reply(envelope.number, self._epoch, answer, *order))
        self._durable_at = self._durable_at if self._news else batch.durable_at
        for actor in batch.actors if batch.error is None else ():
            actor.used_at = self._last_commit
            self._news[actor.job] = actor.revision
            if actor.job in self._answers.waiters:
                self._answers.changed(actor.job)

    def _answer_waiters(self) -> None:
        for waiter, answer in self._answers.due(time.monotonic()):
            self._outbox[waiter.client].append(Reply(waiter.id, self._epoch, answer))

    def _publish(self) -> None:
        """One message a commit, or a beat: to a new subscriber it shows that nothing after it will be missed."""
        if self._news:
            self._sequence += 1
        if self._topics:
            if self._news:
                self._meter.lags.append(time.monotonic() - self._durable_at)
            self._feed.send(codec.encode(JobsChanged(self._epoch, self._sequence, self._news)))
        self._news, self._beat_due = {}, False

    def _refuse(self, client: bytes, number: int, error: ActorStateError) -> None:
        if not client:
            return
        telemetry.event("request.refused", code=error.code, error=error)
        self._outbox[client].append(Reply(number, self._epoch, refusal(error)))

    def _send(self) -> None:
        for client, replies in self._outbox.items():
            try:
                self._router.send(client, zmq.SNDMORE | zmq.NOBLOCK)
                self._router.send(codec.encode(replies), zmq.NOBLOCK)
            except zmq.ZMQError as error:  # gone (EHOSTUNREACH) or not reading (EAGAIN): its resend asks again
                telemetry.event("reply.undelivered", errno=error.errno, number=len(replies))
        self._outbox.clear()
        self._outgoing.clear()
