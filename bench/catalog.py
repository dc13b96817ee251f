"""Which peers there are."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from bench.peer import FLAGS, OnPostgres, OnRabbit, OnRedis, Peer, Recipe
from bench.services import RABBIT, REDIS, Services, program
from bench.venvs import python_of

_WORKFLOWS = {"chain", "group", "chord"}
_ALL = {"ignored", "pools", "strict", "results", "eta", "big_chord", *_WORKFLOWS}
_SYNC = "fsync and synchronous_commit on: survives a crash of the machine"

RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            "pgcelery",
            script="pgcelery",
            venv="pgcelery",
            package="pgcelery",
            quiet=("-q",),
            flags=tuple(FLAGS),
            durable=_SYNC,
            can=frozenset(_ALL | {"keyed", "fairness"}),
            pools=("prefork", "threads", "solo"),
            unfinished="select (select count(*) from pgcelery.ready)"
            " + (select count(*) from pgcelery.running)",
        ),
        Recipe(
            "celery+redis",
            script="celery",
            venv="celery",
            package="celery",
            quiet=("-q",),
            flags=tuple(FLAGS),
            durable="no persistence: a crash of Redis loses all",
            can=frozenset(_ALL),
            pools=("prefork", "threads"),
            drain=6_000,
            slow=4,
        ),
        Recipe(
            "celery+rabbitmq",
            script="celery",
            venv="celery",
            package="celery",
            quiet=("-q",),
            flags=tuple(FLAGS),
            durable="persistent messages, not confirmed to the sender; results on Redis"
            " without persistence",
            can=frozenset({"ignored", "strict", "results", *_WORKFLOWS}),
            drain=6_000,
            slow=4,
        ),
        Recipe(
            "pgqueuer",
            script="pgqueuer",
            venv="pgqueuer",
            durable=f"{_SYNC}; stores no results",
            can=frozenset({"ignored", "eta"}),
            returns=False,
            unfinished="select count(*) from pgqueuer where execute_after <= now()",
        ),
        Recipe(
            "procrastinate",
            script="procrastinate",
            venv="procrastinate",
            durable=f"{_SYNC}; stores no results",
            can=frozenset({"eta"}),
            returns=False,
            unfinished="select count(*) from procrastinate_jobs"
            " where status in ('todo', 'doing') and scheduled_at is null",
            drain=1_500,
            eta_drain=200,
            slow=4,
        ),
        Recipe(
            "potatoq",
            script="potatoq",
            venv="potatoq",
            package="potatoq",
            flags=("-l", "WARNING"),
            durable=_SYNC,
            can=frozenset({"strict", "results", "eta", *_WORKFLOWS}),
            unfinished="select count(*) from potatoq_jobs where state > 0",
            drain=3_000,
            slow=4,
        ),
        Recipe(
            "skeleton",
            script="skeleton",
            venv="skeleton",
            durable=f"{_SYNC}; no leases, so what a killed worker had is lost",
            can=frozenset({"results", "eta"}),
            unfinished="select count(*) from queue where not waits",
        ),
    )
}


def with_servers() -> list[str]:
    """The peers whose servers are installed; it is said which are left out."""
    needs = {"celery+redis": [REDIS], "celery+rabbitmq": [REDIS, RABBIT]}
    found = []
    for name in RECIPES:
        lacking = [programs for programs in needs.get(name, []) if not program(programs)]
        if lacking:
            print(f"{name} is left out: there is no {lacking[0][-1]}")
        else:
            found.append(name)
    return found


def make(
    names: list[str],
    stack: ExitStack,
    services: Services,
    marks: Path,
    concurrency: int,
    venvs: Path | None,
) -> list[Peer]:
    """The peers of a run, with their servers running.

    Raises:
        RuntimeError: A server or an environment cannot be had; the message says why.
    """
    found: list[Peer] = []
    for name in names:
        recipe = RECIPES[name]
        basis = (recipe, python_of(recipe.venv, venvs), marks, concurrency)
        if name == "celery+redis":
            found.append(OnRedis(*basis, redis=services.redis(stack)))
        elif name == "celery+rabbitmq":
            rabbit, redis = services.rabbit(stack), services.redis(stack)
            found.append(OnRabbit(*basis, rabbit=rabbit, redis=redis))
        else:
            found.append(OnPostgres(*basis, postgres=services.postgres(stack)))
    return found
