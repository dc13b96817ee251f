"""What is measured. Each measure makes one peer's numbers for one round.

A measure starts from an empty broker. A task that is lost, a result that is wrong or a worker that
dies is an error: there is no number for half a result.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.marks import Marks
from bench.peer import STORED, Peer, Setup
from bench.processes import Worker, exact_cpu_s

FAR = 6 * 3600  #: seconds until a waiting task is due: never during a run
IGNORED = Setup(stored=False)
STRICT = Setup(strict=True)


@dataclass(frozen=True)
class Sizes:
    """How many tasks each measure sends; a slow peer's share of it is in its recipe."""

    single: int = 2_000
    bulk: int = 20_000
    drain: float = 1.0  #: times the recipe's
    strict: int = 2_000
    warm: int = 10
    slow_rate: int = 100  #: tasks sent at 20/s
    fast_rate: int = 2_000  #: tasks sent at 500/s
    idle_s: float = 10.0
    eta: int = 100_000
    canvas_warm: int = 3  #: workflows that are not counted
    canvas: int = 15  #: workflows that are
    chain: int = 10  #: steps
    group: int = 100  #: members
    chord: int = 100  #: members of the header
    big_chord: int = 100_000
    keyed: int = 20_000
    keys: int = 1_000
    fairness: int = 1_000_000  #: tasks of the one tenant; of the other there are ten


@dataclass(frozen=True)
class Lab:
    """What every measure needs."""

    marks: Marks
    sizes: Sizes


Values = dict[str, float]
Phase = Callable[[Lab, Peer], Values]


def enqueue(lab: Lab, peer: Peer) -> Values:
    """One producer, one task after the other."""
    n = lab.sizes.single
    peer.reset()
    return {"enqueue": n / peer.produce("enqueue", 0, n)["seconds"]}


def bulk(lab: Lab, peer: Peer) -> Values:
    """One producer, 1,000 a call."""
    n = lab.sizes.bulk // peer.recipe.slow
    peer.reset()
    return {"bulk": n / peer.produce("bulk", 0, n)["seconds"]}


def drain(lab: Lab, peer: Peer) -> Values:
    """Tasks wait, a worker starts: first start until the last is done and acknowledged."""
    return _drain(lab, peer, "drain", STORED, _drain_size(lab, peer))


def ignored(lab: Lab, peer: Peer) -> Values:
    """The same without results, in each pool; the best one of the round counts."""
    values: Values = {}
    n = _drain_size(lab, peer)
    for pool in peer.recipe.pools:
        values |= _drain(lab, peer, f"ignored_{pool}", Setup(pool, stored=False), n)
    best = max(peer.recipe.pools, key=lambda pool: values[f"ignored_{pool}"])
    values["ignored"] = values[f"ignored_{best}"]
    values["ignored_cpu"] = values[f"ignored_{best}_cpu"]
    return values


def pools(lab: Lab, peer: Peer) -> Values:
    """`drain` in the pools that are not the first."""
    values: Values = {}
    for pool in peer.recipe.pools[1:]:
        values |= _drain(lab, peer, f"drain_{pool}", Setup(pool), _drain_size(lab, peer))
    return values


def strict(lab: Lab, peer: Peer) -> Values:
    """Results stored, one task at a time for each pool process, acknowledged when it has ended."""
    return _drain(lab, peer, "strict", STRICT, lab.sizes.strict)


def latency(lab: Lab, peer: Peer) -> Values:
    """A warm worker: tasks at 20/s and at 500/s."""
    sizes = lab.sizes
    values: Values = {}
    with _warm_worker(lab, peer) as worker:
        slow = _paced(lab, peer, worker, 1_000, sizes.slow_rate, 20)
        values |= _spread("lat20", slow)
        if "results" in peer.recipe.can:
            took = peer.produce("results", 20_000, sizes.slow_rate, 20)["took"]
            values |= _spread("result20", took)
        fast = _paced(lab, peer, worker, 30_000, sizes.fast_rate, 500)
        values |= _spread("lat500", fast)
    return values


def idle(lab: Lab, peer: Peer) -> Values:
    """From the start of the worker to its first task, then what it costs when nothing happens."""
    peer.reset()
    lab.marks.clear()
    peer.produce("put", 0, lab.sizes.warm)
    with peer.worker() as worker:
        first = min(lab.marks.wait(0, lab.sizes.warm, 60, worker.alive, poll_s=0.01))
        time.sleep(min(3.0, lab.sizes.idle_s))
        rss, pss = worker.memory()
        watched = [*worker.family(), *peer.broker()]
        asked, cpu, begin = peer.queries(), exact_cpu_s(watched), time.monotonic()
        time.sleep(lab.sizes.idle_s)
        wall = time.monotonic() - begin
        used, answered = exact_cpu_s(watched) - cpu, peer.queries()
    values = {
        "start_s": (first - worker.started_ns) / 1e9,
        "idle_rss": rss,
        "idle_pss": pss,
        "idle_cpu": 100 * used / wall,
    }
    if asked is not None and answered is not None:
        values["idle_queries"] = (answered - asked) / wall
    return values


def eta(lab: Lab, peer: Peer) -> Values:
    """The same drain without and with tasks that wait for a far time."""
    n = max(50, int((peer.recipe.eta_drain or peer.recipe.drain) * lab.sizes.drain))
    waiting = lab.sizes.eta
    values: Values = {}
    for name, backlog in (("without", 0), ("with", waiting)):
        peer.reset()
        lab.marks.clear()
        if backlog:
            values["eta_enqueue"] = backlog / peer.produce("eta", 0, backlog, FAR)["seconds"]
        peer.produce("fill", backlog, n)
        peer.settle()
        with peer.worker() as worker:
            times = lab.marks.wait(backlog, n, 400, worker.alive)
            values[f"eta_{name}"] = (n - 1) / ((max(times) - min(times)) / 1e9)
            values[f"eta_{name}_start"] = (min(times) - worker.started_ns) / 1e9
            values[f"eta_{name}_rss"] = worker.memory()[0]
    values["eta_kept"] = values["eta_with"] / values["eta_without"]
    values["eta_growth"] = values["eta_with_rss"] - values["eta_without_rss"]
    values["eta_first"] = values["eta_with_start"]
    return values


def chain(lab: Lab, peer: Peer) -> Values:
    """A warm worker, one chain after the other: until the caller has the last step's result."""
    return _canvas(lab, peer, "chain", lab.sizes.chain)


def group(lab: Lab, peer: Peer) -> Values:
    """A warm worker, one group after the other: until the caller has all results."""
    return _canvas(lab, peer, "group", lab.sizes.group)


def chord(lab: Lab, peer: Peer) -> Values:
    """A warm worker, one chord after the other: until the caller has the body's result."""
    return _canvas(lab, peer, "chord", lab.sizes.chord)


def big_chord(lab: Lab, peer: Peer) -> Values:
    """One chord that is large: seconds, and the most memory of producer and worker."""
    size, timeout_s = lab.sizes.big_chord, 1800
    with _warm_worker(lab, peer) as worker:
        before = worker.memory()
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
        "big_pss_growth": peak["pss"] - before[1],
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
            values[f"{name}_drain"] = drained(lab, peer, worker, n)
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


_MEASURES = (enqueue, bulk, drain, ignored, strict, latency, idle, chain, group, chord, eta)
_SEPARATE = (pools, big_chord, keyed, fairness)  #: not of the standard run
PHASES: dict[str, Phase] = {f.__name__: f for f in (*_MEASURES, *_SEPARATE)}
STANDARD = [f.__name__ for f in _MEASURES]
#: Those that a peer has to say it can do.
ASKED = {
    *("ignored", "strict", "eta", "chain", "group", "chord"),
    *("pools", "big_chord", "keyed", "fairness"),
}


@contextlib.contextmanager
def _warm_worker(lab: Lab, peer: Peer) -> Iterator[Worker]:
    """An empty broker and a worker that has run some tasks and is idle."""
    peer.reset()
    lab.marks.clear()
    with peer.worker() as worker:
        peer.produce("put", 0, lab.sizes.warm)
        lab.marks.wait(0, lab.sizes.warm, 60, worker.alive)
        time.sleep(1)
        yield worker


def _canvas(lab: Lab, peer: Peer, command: str, size: int) -> Values:
    with _warm_worker(lab, peer):
        took = peer.produce(command, size, lab.sizes.canvas_warm, lab.sizes.canvas)["took"]
    return _spread(command, took)


def _drain_size(lab: Lab, peer: Peer) -> int:
    return max(200, int(peer.recipe.drain * lab.sizes.drain))


def _drain(lab: Lab, peer: Peer, name: str, setup: Setup, n: int) -> Values:
    peer.reset()
    lab.marks.clear()
    ids = peer.produce("fill", 0, n, setup=setup)["ids"]
    peer.settle()
    broker = peer.broker_cpu()
    with peer.worker(setup) as worker:
        rate = drained(lab, peer, worker, n)
        worker_s, broker_s = worker.cpu(), peer.broker_cpu() - broker
        rss, pss = worker.memory()
    if setup.stored:
        peer.verify(ids, 0, n)
    return {
        name: rate,
        f"{name}_cpu": 1e6 * (worker_s + broker_s) / n,
        f"{name}_worker_cpu": 1e6 * worker_s / n,
        f"{name}_rss": rss,
        f"{name}_pss": pss,
    }


def drained(lab: Lab, peer: Peer, worker: Worker, n: int) -> float:
    """Tasks a second from the first start until all have run and none is unacknowledged."""
    times = lab.marks.wait(0, n, 300, worker.alive, poll_s=0.01)
    end = time.monotonic() + 60
    while left := peer.unfinished():
        if time.monotonic() > end:
            raise RuntimeError(f"{left} tasks ran but were never acknowledged")
        time.sleep(0.005)
    return (n - 1) / ((time.time_ns() - min(times)) / 1e9)


def _paced(lab: Lab, peer: Peer, worker: Worker, at: int, n: int, rate: int) -> list[int]:
    sent = peer.produce("paced", at, n, rate)["sent"]
    started = lab.marks.wait(at, n, 60, worker.alive)
    return [s - t for s, t in zip(started, sent, strict=True)]


def _spread(name: str, nanoseconds: Sequence[int]) -> Values:
    """Milliseconds: p50 under the plain name, p95 and p99."""
    cuts = statistics.quantiles(nanoseconds, n=100, method="inclusive")
    return {
        name: cuts[49] / 1e6,
        f"{name}_p95": cuts[94] / 1e6,
        f"{name}_p99": cuts[98] / 1e6,
    }
