"""Faults of the network: each client has a link of its own through the proxy."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path

from tests.faults.suite.fleet import Worker, cpu_s
from tests.faults.suite.oracle import runs
from tests.faults.suite.trial import Fault, Ground
from tests.support.wait import wait_for

EXPIRED = "registering anew"  #: what a worker says once it hears that its lease is over


def busy_worker(ground: Ground) -> Worker:
    """Give all workers tasks that take longer than a lease, and name one that has begun some."""
    for _ in range(ground.fault.workers * ground.fault.slots - 1):
        ground.load.send("endless")

    def found() -> list[Worker]:
        begun = Counter(run.group for run in runs(ground.oracle) if run.ended is None)
        return [worker for worker in ground.fleet.up() if begun[worker.pid] >= 2]

    return wait_for(found)[0]


def blackhole(ground: Ground) -> None:
    """Nothing passes between one worker and the server for two leases; then it arrives."""
    lease_s = ground.fault.lease_s
    worker = busy_worker(ground)
    link = ground.link_of(worker)
    with ground.strike("its worker was cut off", [worker], fenced_s=lease_s):
        link.hold()
        ground.rest(lease_s * 2)
        link.let_go()
    wait_for(lambda: EXPIRED in worker.process.output(), 15)


def late_requests(ground: Ground) -> None:
    """What a worker says arrives when its lease is over and others are at its tasks."""
    lease_s = ground.fault.lease_s
    for _ in range(ground.times(4)):
        worker = ground.fleet.up()[0]
        link = ground.link_of(worker)
        with ground.strike("its worker was not heard", [worker], fenced_s=lease_s):
            link.hold("requests")
            ground.rest(lease_s + 2.2)
            link.let_go()
        ground.rest(1.0)


def refuse_everyone(ground: Ground) -> None:
    """All connections are reset, and none accepted, for 8 s."""
    with ground.strike("everyone was cut off", everyone=True, reruns=False):
        for link in ground.network.links.values():
            link.refuse()
            link.reset()
        ground.rest(1.0)
        pids = [pid for worker in ground.fleet.up() for pid in (worker.pid, *worker.children())]
        before, began = sum(map(cpu_s, pids)), time.monotonic()
        ground.rest(3 if ground.quick else 7)
        share = (sum(map(cpu_s, pids)) - before) / (time.monotonic() - began) / len(pids)
        for link in ground.network.links.values():
            link.accept()
    ground.say(f"{share:.1%} of a core for each disconnected process")
    if share > 0.05:
        ground.wrong("P21", f"a disconnected process computed for {share:.0%} of the time")
    if ground.load.raised == 0:
        ground.wrong("P21", "no send raised, though nothing could be reached")


def lose_answers(ground: Ground) -> None:
    """The sender's requests arrive, their answers do not, and no retry gets through for a while."""
    link = ground.network.links["sender"]
    for _ in range(ground.times(6)):
        link.hold("answers")
        ground.rest(0.5)
        link.refuse()
        link.reset()
        ground.rest(1.0)
        link.let_go()
        link.accept()
        ground.rest(0.7)
    if ground.load.raised == 0:
        ground.wrong("P2", "no send raised, though answers were lost")


def lose_requests(ground: Ground) -> None:
    """What a worker says is held, and lost with its connection; nothing is run again for that."""
    for number in range(ground.times(18)):  # in about each second one an end is on its way
        link = ground.link_of(ground.fleet.up()[number % 2])
        link.hold("requests")
        ground.rest(0.4)
        link.reset()
        link.let_go()
        ground.rest(0.3)
    ground.healed_at = time.monotonic()


def latency(ground: Ground) -> None:
    """300 ms ± 300 ms each way for everyone, and one chunk in a hundred resets its connection."""
    for link in ground.network.links.values():
        link.delay_s = link.jitter_s = 0.3
        link.reset_share = 0.01
    ground.rest(6 if ground.quick else 12)
    for link in ground.network.links.values():
        link.delay_s = link.jitter_s = link.reset_share = 0.0
    ground.healed_at = time.monotonic()
    for worker in ground.fleet.up():
        if EXPIRED in worker.process.output():
            ground.wrong("P9", f"{worker.name} lost its lease though beats arrived")


def lose_notifications(ground: Ground) -> None:
    """Connections that listen for results die silently while somebody waits: results are found."""
    link, load = ground.network.links["sender"], ground.load
    took = []
    for _ in range(ground.times(6)):
        number = str(load.next_number())
        _, calls = load.maker.single("work", number)
        result = load.tasks.work.s(calls[number].given, number, seconds=1.0).apply_async()
        load.adopt("frozen", calls)
        began = time.monotonic()
        timer = threading.Timer(0.3, link.freeze)  # it listens by then
        timer.start()
        assert result.get(timeout=10) == calls[number].value
        took.append(time.monotonic() - began - 1.0)
        timer.join()
    ground.healed_at = time.monotonic()
    ground.say(f"results found {max(took):.2f} s late at most")
    if max(took) > 1.5:
        ground.wrong("P22", f"a result was found {max(took):.1f} s late")


class Bouncer:
    """A PgBouncer that pools transactions, in front of the server."""

    def __init__(self, ground: Ground) -> None:
        server = ground.server
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        home = server.account.make_directory(server.socket_dir / "bouncer")
        self._ini = home / "pgbouncer.ini"
        text = f"""
[databases]
* = host={server.socket_dir} port=5432 user=pgcelery
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
max_client_conn = 200
ignore_startup_parameters = extra_float_digits
logfile = {home}/log
pidfile = {home}/pid
"""
        server.account.run(["sh", "-c", 'cat > "$1"', "sh", self._ini], stdin=text)
        self._account = server.account

    @property
    def dsn(self) -> str:
        return (
            f"postgresql://pgcelery@127.0.0.1:{self.port}/postgres?sslmode=disable"
            "&gssencmode=disable"
        )

    def start(self) -> None:
        program = _bouncer_program()
        assert program is not None
        switch = (
            {"user": self._account.uid, "group": self._account.gid, "extra_groups": []}
            if self._account.foreign
            else {}
        )
        self._process = subprocess.Popen(
            [program, self._ini], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **switch
        )
        wait_for(self._accepts)

    def _accepts(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(10)


def _bouncer_program() -> str | None:
    return shutil.which("pgbouncer") or next(
        (path for path in ("/usr/sbin/pgbouncer",) if Path(path).exists()), None
    )


def _no_bouncer() -> str | None:
    return None if _bouncer_program() else "pgbouncer is not installed"


def restart_bouncer(ground: Ground) -> None:
    """Two workers and a sender through a transaction pooler, which is killed and started again."""
    bouncer = Bouncer(ground)
    bouncer.start()
    try:
        workers = [ground.start_worker(dsn=bouncer.dsn, wait=False) for _ in range(2)]
        ground.fleet.ready(*workers)
        ground.send_by(bouncer.dsn)
        ground.load.start()
        for _ in range(ground.times(4)):
            ground.rest(2.0)
            with ground.strike("the pooler was killed", everyone=True, reruns=False):
                bouncer.kill()
                ground.rest(0.5)
                bouncer.start()
        ground.rest(1.0)
        ground.finish()
    finally:
        bouncer.kill()


FAULTS = [
    Fault(
        "20",
        "one worker cut off for two leases",
        blackhole,
        quick=True,
        mix=("quick", "slow", "early", "chord", "chain"),
        rate=4,
        lease_s=4,
        slack_s=12,
    ),
    Fault(
        "20b",
        "what a worker says arrives after its lease",
        late_requests,
        mix=("long",),
        rate=1.3,
        lease_s=3,
        calm_s=3,
        slack_s=12,
    ),
    Fault(
        "21",
        "everyone refused and reset for 8 s",
        refuse_everyone,
        quick=True,
        lease_s=12,
    ),
    Fault(
        "23",
        "answers to the sender vanish",
        lose_answers,
        quick=True,
        rate=16,
        mix=("group", "quick", "chord", "group", "chain"),
    ),
    Fault("24", "what a worker says vanishes", lose_requests),
    Fault("25", "300 ms ± 300 ms, one chunk in 100 resets", latency, rate=6),
    Fault(
        "28",
        "PgBouncer pooling transactions, killed and restarted",
        restart_bouncer,
        transport={"listen": False},
        needs=_no_bouncer,
        workers=0,
        idle=True,
        rate=8,
    ),
    Fault("30", "connections that listen silently dead", lose_notifications, rate=4),
]
