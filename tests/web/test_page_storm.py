"""A storm of refreshes in numbers, with and without nginx: what reaches the writer, and what its workers feel of it.

pytest -s -m nightly tests/web/test_page_storm.py

Everything shares this machine's processors, the readers too. So each kind of load is measured in turns with all
others, and beside the calm stands a control: processes that burn as much processor time on nothing. What the
workers feel more than that is ours; the rest is the scheduler's, and any other program would cost it as well.
"""

import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from actorstate.client.sync import connect
from actorstate.config import ClientSettings
from tests.support.gunicorn import WITHIN_S, gunicorn
from tests.support.nginx import nginx

pytestmark = [
    pytest.mark.nightly,
    pytest.mark.alone,
    pytest.mark.skipif(not (shutil.which("wrk") and shutil.which("nginx")), reason="needs wrk and nginx"),
]
ROUNDS, SLICE_S = 4, 2
READERS, EVERY_MS = 100, 200
"""500 refreshes a second: 100 readers, each after 0 to 400 ms by chance, for in step they came in bursts."""
GREEDY = 32
"""Readers who refresh the moment they have their answer, and so take all the processors that there are."""
TICKS = os.sysconf("SC_CLK_TCK")
BURN = """
import select, sys, time
for share in map(float, sys.stdin):
    until = time.monotonic() + {slice_s}
    while (now := time.monotonic()) < until:
        while time.monotonic() < now + share * 1e-3: pass
        if share < 1: select.select((), (), (), (1 - share) * 1e-3)
"""
"""Burns a share of a processor, in pieces of a millisecond, for a slice's time each time that it is told a share."""


class Load:
    """What was measured under one kind of load, over all its slices."""

    def __init__(self, name, begin):
        self.name, self.begin = name, begin
        self.acks_s, self.seen, self.lasted_s, self.reads = [], Counter(), 0.0, 0

    @property
    def p99_s(self):
        return statistics.quantiles(self.acks_s, n=100)[98]

    def slice(self, client, worker):
        """One slice of it, beside a worker's acks."""
        before, first, began = client.ask().reads, len(worker.times_s), time.monotonic()
        self.seen.update(self.begin())
        self.lasted_s += time.monotonic() - began
        self.acks_s += worker.times_s[first:]
        self.reads += client.ask().reads - before - 1

    def told(self, calm, burnt):
        pages = f"{self.seen['pages'] / self.lasted_s:9,.0f} pages/s, {self.seen['wrong']} wrong"
        times = f"{self.p99_s * 1e3:6.1f} ms, {self.p99_s / calm.p99_s:4.1f} of calm, {self.p99_s / burnt.p99_s:4.1f}"
        return f"{self.name:36} {pages}, {self.reads / self.lasted_s:6.1f} reads/s; ack p99 {times} of {burnt.name}"


def wrk(folder, url, readers, every_ms=0):
    """A slice of refreshes: at once after the answer, or by chance after 0 to twice `every_ms`."""
    pause = folder / "pause.lua"
    pause.write_text(f"function delay() return math.random(0, {2 * every_ms}) end" if every_ms else "")
    result = subprocess.run(
        ["wrk", "-t1", f"-c{readers}", f"-d{SLICE_S}s", "-s", str(pause), url],
        capture_output=True,
        text=True,
        timeout=SLICE_S + WITHIN_S,
    )
    wrong = re.search(r"Non-2xx or 3xx responses: (\d+)", result.stdout)
    broken = re.findall(r"(?:connect|read|write|timeout) (\d+)", result.stdout)
    pages = int(re.search(r"(\d+) requests in", result.stdout)[1])
    return {"pages": pages, "wrong": int(wrong[1] if wrong else 0) + sum(map(int, broken))}


class Acks(threading.Thread):
    """A worker that saves a checkpoint after the other, and how long each took."""

    def __init__(self, client):
        super().__init__()
        self.client, self.ended, self.times_s = client, threading.Event(), []

    def run(self):
        with self.client.attach("import-42") as job:
            while not self.ended.wait(0.002):
                began = time.monotonic()
                job.checkpoint({"after": len(self.times_s)})
                self.times_s.append(time.monotonic() - began)


@contextmanager
def burners(number):
    """Processes, each in a session of its own as servers are; calling what is given burns a share for a slice."""
    command = [sys.executable, "-u", "-c", BURN.format(slice_s=SLICE_S) + "    print()\n"]
    with_pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "start_new_session": True}
    processes = [subprocess.Popen(command, **with_pipes) for _ in range(number)]

    def burn(share):
        for process in processes:
            process.stdin.write(f"{share}\n".encode())
            process.stdin.flush()
        for process in processes:
            assert select.select([process.stdout], [], [], WITHIN_S)[0]
            process.stdout.readline()
        return {}

    try:
        yield burn
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def used_s(session):
    """Processor time of all processes of a session, and of those that were waited for."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            total += sum(map(int, fields[11:13]))
    return total / TICKS


def test_a_storm_of_refreshes_reaches_neither_the_disk_nor_the_workers(directory, writer, tmp_path):
    patient = ClientSettings(timeout_s=WITHIN_S)
    with connect(directory, autostart=False, settings=patient) as client:
        client.create("import-42", total=1_000)
        client.create("quiet-1", total=1_000)
        web = gunicorn(directory, tmp_path / "web.log", "-k", "gthread", "--threads", "8")
        with web as server, nginx(tmp_path, server.port) as port, burners(3) as burn:
            worker = Acks(client)
            worker.start()
            try:
                loads = measured(client, worker, Storms(tmp_path, server, port), burn)
            finally:
                worker.ended.set()
                worker.join(WITHIN_S)
    for load in loads.values():
        print(load.told(loads["calm"], loads["all burnt" if "greedy" in load.name else "burnt"]))
    check(loads)


class Storms:
    """The kinds of refreshes, and the share of a processor that the steady one took, spread over three processes."""

    def __init__(self, folder, server, nginx_port):
        self._folder, self._server = folder, server
        self._plain, self._cached = f"http://127.0.0.1:{server.port}", f"http://127.0.0.1:{nginx_port}"
        self.share = 0.5

    def steady(self):
        before, began = used_s(self._server.process.pid) + children_s(), time.monotonic()
        seen = wrk(self._folder, f"{self._plain}/api/jobs/import-42", READERS, EVERY_MS)
        used = used_s(self._server.process.pid) + children_s() - before
        self.share = min(1.0, used / (time.monotonic() - began) / 3)
        return seen

    def steady_cached(self):
        return wrk(self._folder, f"{self._cached}/api/jobs/import-42", READERS, EVERY_MS)

    def greedy(self):
        return wrk(self._folder, f"{self._plain}/api/jobs/import-42", GREEDY)

    def greedy_cached(self):
        return wrk(self._folder, f"{self._cached}/api/jobs/import-42", GREEDY)

    def greedy_quiet(self):
        return wrk(self._folder, f"{self._plain}/api/jobs/quiet-1", GREEDY)


def children_s():
    """Processor time of the programs that were run to their end: wrk."""
    times = os.times()
    return times.children_user + times.children_system


def measured(client, worker, storms, burn):
    kinds = {
        "calm": lambda: threading.Event().wait(SLICE_S) or {},
        "steady": storms.steady,
        "burnt": lambda: burn(storms.share),
        "steady, nginx": storms.steady_cached,
        "greedy": storms.greedy,
        "all burnt": lambda: burn(1.0),
        "greedy, nginx": storms.greedy_cached,
        "greedy, nothing changes": storms.greedy_quiet,
    }
    loads = {name: Load(name, begin) for name, begin in kinds.items()}
    for _ in range(ROUNDS):
        for load in loads.values():
            load.slice(client, worker)
    return loads


def check(loads):
    calm, all_burnt = loads["calm"], loads["all burnt"]
    assert {name: load.seen["wrong"] for name, load in loads.items() if load.seen["wrong"]} == {}
    for name in ("steady", "steady, nginx"):
        assert loads[name].p99_s <= 2 * calm.p99_s, f"the workers feel the storm: {name}"
    for name in ("greedy", "greedy, nginx"):
        assert loads[name].p99_s <= 3 * all_burnt.p99_s, f"the workers feel the storm: {name}"
    assert loads["greedy, nothing changes"].reads <= 10 * ROUNDS
    assert loads["steady, nginx"].reads <= 20 * loads["steady, nginx"].lasted_s
