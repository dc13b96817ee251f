"""What is measured. Each phase makes one peer's numbers for one round.

A phase starts from an empty broker and returns a value for each of its measures. A task that is
lost, or a worker that dies, ends the run with an error: there is no number for half a result.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import psutil

from bench.marks import Marks
from bench.peers import Peer, Worker

FAR = 6 * 3600  #: seconds until a waiting task is due: never during a run


@dataclass(frozen=True)
class Sizes:
    """How many tasks each phase sends."""

    single: int = 3000
    bulk: dict[str, int] | None = None
    drain: dict[str, int] | None = None
    warm: int = 10
    slow_rate: int = 100  #: tasks sent at 20/s
    fast_rate: int = 3000  #: tasks sent at 500/s
    eta: int = 100_000
    canvas_warm: int = 5  #: workflows that are not counted
    canvas: int = 30  #: workflows that are
    chain: int = 10  #: steps
    group: int = 100  #: members
    chord: int = 100  #: members of the header
    big_chord: int = 100_000
    keyed: int = 20_000
    keys: int = 1_000
    fairness: int = 1_000_000  #: tasks of the one tenant; of the other there are ten

    def of(self, peer: Peer, sizes: dict[str, int] | None, default: int) -> int:
        """A size that differs between the peers, so that each runs for some seconds."""
        return (sizes or {}).get(peer.name, default)


@dataclass(frozen=True)
class Lab:
    """What every phase needs."""

    marks: Marks
    sizes: Sizes


Values = dict[str, float]
Phase = Callable[[Lab, Peer], Values]


def enqueue(lab: Lab, peer: Peer) -> Values:
    """One producer: one task after the other, then groups of 1,000."""
    single, many = lab.sizes.single, lab.sizes.of(peer, lab.sizes.bulk, 20_000)
    peer.reset()
    alone = single / peer.produce("enqueue", 0, single)["seconds"]
    peer.reset()
    return {"enqueue": alone, "bulk": many / peer.produce("bulk", 0, many)["seconds"]}


def drain(lab: Lab, peer: Peer) -> Values:
    """Tasks wait, a worker starts: first start until the last is done and acknowledged."""
    n = lab.sizes.of(peer, lab.sizes.drain, 20_000)
    _fill(lab, peer, n)
    broker, machine = peer.broker_cpu(), psutil.cpu_times()
    begin = time.monotonic()
    with peer.worker() as worker:
        rate = _drained(lab, peer, worker, n)
        wall = time.monotonic() - begin
        after = psutil.cpu_times()
        worker_s, broker_s = worker.cpu(), peer.broker_cpu() - broker
        rss, _ = worker.memory()
    busy = _busy(after) - _busy(machine) - worker_s - broker_s
    return {
        "drain": rate,
        "drain_cpu": 1e6 * (worker_s + broker_s) / n,
        "drain_worker_cpu": 1e6 * worker_s / n,
        "drain_rss": rss,
        "others": max(0.0, busy / wall),
    }


def latency(lab: Lab, peer: Peer) -> Values:
    """An idle worker: memory, then tasks at 20/s and at 500/s."""
    peer.reset()
    lab.marks.clear()
    sizes = lab.sizes
    with peer.worker() as worker:
        peer.produce("enqueue", 0, sizes.warm)
        first = min(lab.marks.wait(0, sizes.warm, 60, worker.alive))
        time.sleep(1.5)
        rss, pss = worker.memory()
        slow = _paced(lab, peer, worker, 1_000, sizes.slow_rate, 20)
        took = peer.produce("results", 20_000, sizes.slow_rate, 20)["took"]
        fast = _paced(lab, peer, worker, 30_000, sizes.fast_rate, 500)
    return {
        "start_s": (first - worker.started_ns) / 1e9,
        "idle_rss": rss,
        "idle_pss": pss,
        "lat20": _percentile(slow, 50),
        "lat20_p95": _percentile(slow, 95),
        "result20": _percentile(took, 50),
        "result20_p95": _percentile(took, 95),
        "lat500": _percentile(fast, 50),
        "lat500_p95": _percentile(fast, 95),
    }


def eta(lab: Lab, peer: Peer) -> Values:
    """The same drain without and with tasks that wait for a far time."""
    n, waiting = lab.sizes.of(peer, lab.sizes.drain, 20_000), lab.sizes.eta
    values: Values = {}
    for name, backlog in (("without", 0), ("with", waiting)):
        peer.reset()
        if backlog:
            values["eta_enqueue"] = backlog / peer.produce("eta", 0, backlog, FAR)["seconds"]
        _fill(lab, peer, n, at=backlog, reset=False)
        with peer.worker() as worker:
            times = lab.marks.wait(backlog, n, 400, worker.alive)
            values[f"eta_{name}"] = (n - 1) / ((max(times) - min(times)) / 1e9)
            values[f"eta_{name}_start"] = (min(times) - worker.started_ns) / 1e9
            values[f"eta_{name}_rss"] = worker.memory()[0]
    values["eta_kept"] = values["eta_with"] / values["eta_without"]
    values["eta_growth"] = values["eta_with_rss"] - values["eta_without_rss"]
    return values


def chain(lab: Lab, peer: Peer) -> Values:
    """An idle worker, one chain after the other: until the caller has the last step's result."""
    return _canvas(lab, peer, "chain", lab.sizes.chain)


def group(lab: Lab, peer: Peer) -> Values:
    """An idle worker, one group after the other: until the caller has all results."""
    return _canvas(lab, peer, "group", lab.sizes.group)


def chord(lab: Lab, peer: Peer) -> Values:
    """An idle worker, one chord after the other: until the caller has the body's result."""
    return _canvas(lab, peer, "chord", lab.sizes.chord)


def big_chord(lab: Lab, peer: Peer) -> Values:
    """One chord that is large: seconds, and the most memory of producer and worker."""
    size, timeout_s = lab.sizes.big_chord, 1800
    with _warm_worker(lab, peer) as worker:
        idle = worker.memory()
        with worker.watched() as peak:
            done = peer.produce("big_chord", size, timeout_s, timeout_s=timeout_s + 60)
    return {
        "big_members": size,
        "big_sent": done["sent"],
        "big_took": done["took"],
        "big_producer": done["rss"],
        "big_producer_growth": done["rss"] - done["rss_before"],
        "big_rss": peak["rss"],
        "big_pss": peak["pss"],
        "big_pss_growth": peak["pss"] - idle[1],
    }


def keyed(lab: Lab, peer: Peer) -> Values:
    """The same drain without limits and with one task at a time of each of many keys."""
    n, keys = lab.sizes.keyed, lab.sizes.keys
    values: Values = {}
    for name in ("plain", "keyed"):
        peer.reset()
        lab.marks.clear()
        sent = peer.produce("bulk", 0, n) if name == "plain" else peer.produce("keyed", 0, n, keys)
        values[f"{name}_sent"] = n / sent["seconds"]
        peer.settle()
        broker = peer.broker_cpu()
        with peer.worker() as worker:
            values[f"{name}_drain"] = _drained(lab, peer, worker, n)
            values[f"{name}_cpu"] = 1e6 * (worker.cpu() + peer.broker_cpu() - broker) / n
    values["keyed_kept"] = values["keyed_drain"] / values["plain_drain"]
    return values


def fairness(lab: Lab, peer: Peer) -> Values:
    """One tenant has a million tasks waiting, another one sends ten: when do those start."""
    n = lab.sizes.fairness
    peer.reset()
    lab.marks.clear()
    peer.produce("keyed", 0, n, 1, 0, 8)
    peer.settle()
    with peer.worker() as worker:
        lab.marks.wait(0, 1000, 60, worker.alive)
        sent = peer.produce("keyed", n, 10, 1, 1, 8)["sent"]
        small = lab.marks.wait(n, 10, 60, worker.alive)
        big = [at for at in lab.marks.read(0, n) if at > sent]
    first, last = min(small), max(small)
    return {
        "fair_first": (first - sent) / 1e6,
        "fair_last": (last - sent) / 1e6,
        "fair_first_others": sum(at < first for at in big),
        "fair_last_others": sum(at < last for at in big),
    }


PHASES: dict[str, Phase] = {
    f.__name__: f
    for f in (enqueue, drain, latency, eta, chain, group, chord, big_chord, keyed, fairness)
}


@contextlib.contextmanager
def _warm_worker(lab: Lab, peer: Peer) -> Iterator[Worker]:
    """An empty broker and a worker that has run some tasks and is idle."""
    peer.reset()
    lab.marks.clear()
    with peer.worker() as worker:
        peer.produce("enqueue", 0, lab.sizes.warm)
        lab.marks.wait(0, lab.sizes.warm, 60, worker.alive)
        time.sleep(1.5)
        yield worker


def _canvas(lab: Lab, peer: Peer, command: str, size: int) -> Values:
    with _warm_worker(lab, peer):
        took = peer.produce(command, size, lab.sizes.canvas_warm, lab.sizes.canvas)["took"]
    return {command: _percentile(took, 50), f"{command}_p95": _percentile(took, 95)}


def _fill(lab: Lab, peer: Peer, n: int, at: int = 0, reset: bool = True) -> None:
    if reset:
        peer.reset()
    lab.marks.clear()
    peer.produce("bulk", at, n)
    peer.settle()


def _drained(lab: Lab, peer: Peer, worker: Worker, n: int) -> float:
    times = lab.marks.wait(0, n, 300, worker.alive)
    end = time.monotonic() + 60
    while peer.unfinished():
        if time.monotonic() > end:
            raise RuntimeError(f"{peer.unfinished()} tasks ran but were never acknowledged")
        time.sleep(0.005)
    return (n - 1) / ((time.time_ns() - min(times)) / 1e9)


def _paced(lab: Lab, peer: Peer, worker: Worker, at: int, n: int, rate: int) -> list[int]:
    sent = peer.produce("paced", at, n, rate)["sent"]
    started = lab.marks.wait(at, n, 60, worker.alive)
    return [s - t for s, t in zip(started, sent, strict=True)]


def _percentile(nanoseconds: Sequence[int], percent: int) -> float:
    return statistics.quantiles(nanoseconds, n=100, method="inclusive")[percent - 1] / 1e6


def _busy(times: psutil._common.scputimes) -> float:
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - times.guest)
