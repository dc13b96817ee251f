"""Faults of the server."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg

from tests.faults.suite.server import Server
from tests.faults.suite.trial import Fault, Ground
from tests.support.wait import wait_for

_CLIENTS = "backend_type = 'client backend' and pid <> pg_backend_pid()"


def terminate(ground: Ground) -> None:
    """End all connections each second; nothing is run again for that."""
    for _ in range(ground.times(15)):
        with suppress(psycopg.OperationalError):
            ground.server.execute(
                f"select pg_terminate_backend(pid) from pg_stat_activity where {_CLIENTS}"  # noqa: S608
            )
        ground.rest(1.0)
    ground.healed_at = time.monotonic()


def terminate_nodes(ground: Ground) -> None:
    """End the connections of workers' parents, while their children go on with chains."""
    for _ in range(ground.times(24)):
        with suppress(psycopg.OperationalError):
            ground.server.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'pgcelery'"
            )
        ground.rest(0.5)
    ground.healed_at = time.monotonic()


def crash(ground: Ground) -> None:
    """Stop the server at once and start it again."""
    for _ in range(ground.times(3)):
        with ground.strike("the server crashed", everyone=True, reruns=False):
            ground.server.crash()
            ground.rest(1.0)
            ground.server.start()
        ground.rest(3.0)


def kill_backend(ground: Ground) -> None:
    """SIGKILL one backend: the server ends all others and recovers."""
    for _ in range(ground.times(4)):
        with ground.strike("the server crashed", everyone=True, reruns=False):
            pids = ground.server.execute(
                f"select pid from pg_stat_activity where {_CLIENTS} limit 1"  # noqa: S608
            )
            for (pid,) in pids:
                os.kill(pid, signal.SIGKILL)
            ground.rest(0.3)
            ground.server.recovered()
        ground.rest(1.5)


def no_connections(ground: Ground) -> None:
    """Take every place that is left, end the others' connections and take theirs, for 8 s."""
    strike = ground.strike("no connections were left", everyone=True, reruns=False)
    with psycopg.connect(ground.server.dsn, autocommit=True) as admin, strike, ExitStack() as stack:
        until = time.monotonic() + (4 if ground.quick else 8)
        mine: list[int] = []
        while time.monotonic() < until:
            try:
                conn = psycopg.connect(ground.server.dsn, autocommit=True)
            except psycopg.OperationalError:
                admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where backend_type = 'client backend'"
                    " and pid <> pg_backend_pid() and pid <> all (%s)",
                    [mine],
                )
            else:
                mine.append(conn.info.backend_pid)
                stack.enter_context(conn)
    ground.say(f"{len(mine)} connections taken")
    heard = "".join(worker.process.output() for worker in ground.fleet.up())
    if "too many clients" not in heard and "reserved for" not in heard:
        ground.wrong("fault", "no worker was refused a connection")


def read_only(ground: Ground) -> None:
    """Every transaction is read only for 8 s."""
    with ground.strike("the server was read only", everyone=True, reruns=False):
        ground.server.execute("alter system set default_transaction_read_only = on")
        ground.server.execute("select pg_reload_conf()")
        ground.rest(4 if ground.quick else 8)
        ground.server.write("alter system reset default_transaction_read_only")
        ground.server.write("select pg_reload_conf()")


def deadlocks(ground: Ground) -> None:
    """Sessions lock rows of runs in the reverse of the engine's order; the engine is the victim."""
    ground.server.execute("alter system set deadlock_timeout = '30ms'")
    ground.server.execute("select pg_reload_conf()")
    over = threading.Event()

    def lock() -> None:
        with psycopg.connect(ground.server.dsn) as conn:
            conn.execute("set deadlock_timeout = '200ms'")
            conn.commit()
            while not over.is_set():
                tokens = [
                    row[0]
                    for row in conn.execute(
                        "select token from pgcelery.running order by token desc limit 4"
                    )
                ]
                with suppress(psycopg.errors.DeadlockDetected):
                    for token in tokens:
                        conn.execute(
                            "select from pgcelery.running where token = %s for update", [token]
                        )
                        over.wait(0.02)
                conn.rollback()
                over.wait(0.005)

    threads = [threading.Thread(target=lock, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    ground.rest(4 if ground.quick else 8)
    over.set()
    for thread in threads:
        thread.join(10)
    ground.healed_at = time.monotonic()
    query = "select deadlocks from pg_stat_database where datname = 'postgres'"
    many = wait_for(lambda: ground.server.execute(query)[0][0], 5)
    ground.say(f"{many} deadlocks")


def pinned(ground: Ground) -> None:
    """A transaction in REPEATABLE READ stays open under load."""
    with psycopg.connect(ground.server.dsn) as conn:
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select count(*) from pgcelery.jobs")
        ground.rest(4 if ground.quick else 12)
    ground.healed_at = time.monotonic()


def maintenance(ground: Ground) -> None:
    """VACUUM FULL, REINDEX and ANALYZE of all tables, twice."""
    tables = ground.server.execute(
        "select tablename from pg_tables where schemaname = 'pgcelery' order by 1"
    )
    worst_s = 0.0
    for _ in range(2):
        for (table,) in tables:
            for order in ("vacuum full analyze", "reindex table"):
                began = time.monotonic()
                ground.server.execute(f"{order} pgcelery.{table}")
                worst_s = max(worst_s, time.monotonic() - began)
    ground.say(f"{len(tables) * 4} statements, the slowest took {worst_s:.2f} s")
    ground.healed_at = time.monotonic()


def failover(ground: Ground) -> None:
    """The primary is lost, its synchronous standby is promoted, and links lead there."""
    server = ground.server
    standby = server.copy()
    standby.follow(server, "s1")
    server.execute("alter system set synchronous_standby_names = 's1'")
    server.execute("select pg_reload_conf()")
    state = "select sync_state from pg_stat_replication"
    wait_for(lambda: server.execute(state) == [("sync",)], 20)
    ground.rest(3.0)
    with ground.strike("failover", everyone=True, reruns=False):
        server.crash()
        for link in ground.network.links.values():
            link.reset()
        standby.promote()
        ground.server = standby
        for link in ground.network.links.values():
            link.target = standby.socket
    ground.rest(2.0)


def restore(ground: Ground) -> None:
    """The server is lost, and a base backup of some seconds ago takes its place."""
    with ground.strike("work since the backup is redone", everyone=True, overlaps=True):
        with _stillness(ground):
            backup = ground.server.copy()
        _forget(ground, backup, backup.start)
    ground.rest(2.0)


def lag(ground: Ground) -> None:
    """The primary is lost, and a standby that was some seconds behind is promoted."""
    server = ground.server
    standby = server.copy()
    standby.follow(server, "s1")
    state = "select count(*) from pg_stat_replication"
    wait_for(lambda: server.execute(state) == [(1,)], 20)
    ground.rest(2.0)
    with ground.strike("work that had not arrived is redone", everyone=True, overlaps=True):
        with _stillness(ground):
            standby.execute("alter system set primary_conninfo = ''")
            standby.execute("select pg_reload_conf()")
            wait_for(lambda: server.execute(state) == [(0,)], 20)
        _forget(ground, standby, standby.promote)
    ground.rest(2.0)


@contextmanager
def _stillness(ground: Ground) -> Iterator[None]:
    """Stop workers for a moment, so that it is clear what came before it and what after."""
    workers = ground.fleet.up()
    for worker in workers:
        worker.signal_all(signal.SIGSTOP)
    ground.rest(0.2)
    yield
    for worker in workers:
        worker.signal_all(signal.SIGCONT)


def _forget(ground: Ground, other: Server, takes_over: Callable[[], None]) -> None:
    """Go on for a while, lose the server, and let another go on from where this one began."""
    began = time.monotonic()
    ground.rest(2 if ground.quick else 5)
    ground.server.crash()
    for link in ground.network.links.values():
        link.reset()
    ground.forgotten = (began, time.monotonic())
    takes_over()
    ground.server = other
    for link in ground.network.links.values():
        link.target = other.socket


FAULTS = [
    Fault(
        "31",
        "all connections ended by the server each second",
        terminate,
        quick=True,
        mix=("quick", "slow", "slow_chain", "early", "chord", "slow_chain", "retry", "group"),
    ),
    Fault(
        "31b",
        "connections of workers' parents ended, their children go on with chains",
        terminate_nodes,
        mix=("slow_chain", "quick"),
        rate=10,
    ),
    Fault("32", "immediate stop of the server, restarted", crash, direct=True, quick=True),
    Fault("32b", "the same behind a balancer that accepts and resets", crash),
    Fault("33", "SIGKILL of a backend: recovery of all", kill_backend, direct=True),
    Fault("36", "no connection left (53300) for 8 s", no_connections, direct=True, lease_s=12),
    Fault("37", "read only (25006) for 8 s", read_only, direct=True, lease_s=12),
    Fault(
        "40",
        "deadlocks, the engine being the victim",
        deadlocks,
        mix=("group", "chord", "slow", "group"),
    ),
    Fault("41", "a long transaction holds the horizon", pinned, direct=True),
    Fault("42", "failover to a synchronous standby", failover, quick=True),
    Fault(
        "42b",
        "failover to an asynchronous standby, 5 s behind",
        lag,
        mix=("quick", "slow", "chain", "retry", "group", "chord", "slow_chain"),
    ),
    Fault(
        "43",
        "a base backup of 5 s ago is restored",
        restore,
        mix=("quick", "slow", "chain", "retry", "group", "chord", "slow_chain"),
    ),
    Fault("45", "VACUUM FULL, REINDEX, ANALYZE under load", maintenance, direct=True),
]
