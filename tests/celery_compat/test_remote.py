"""Every remote control command, answered by real Celery's worker and by pgcelery's.

The list of known differences is strict both ways, as in `test_shop`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.celery_compat.worlds import (
    World,
    copy_program,
    differences,
    normal,
    pgcelery_world,
    run_program,
)

pytestmark = [pytest.mark.real_celery, pytest.mark.slow, pytest.mark.timeout(240)]

PROGRAM = Path(__file__).parent / "remote"
#: path in the trace -> why it differs
DIFFERS: dict[str, str] = {
    **dict.fromkeys(
        ["reserved", "query_task.<behind>"],
        "a task that no process is free for waits in the database, not in a worker",
    ),
    "scheduled, revoked": "a revoked task with an eta has ended at once",
    "conf": "Celery's command line sets worker_disable_prefetch when it is not asked to",
    **dict.fromkeys(
        [f"cli: {words} -d no@h -t 0.3[2][0]" for words in ("inspect ping", "status")],
        "pgcelery also says which nodes are alive",
    ),
    "cli, exit code: control multiply six": "Celery shows a traceback",
    "tell: bad rate limit.error": "pgcelery says what a rate is, Celery KeyError('x')",
}
#: Commands that Celery has not: of ``inspect``, of ``control``.
OWN = (["labels"], ["drain", "set_labels", "undrain"])
#: the same of ``inspect stats``
STATS_DIFFER = {"stats.broker.userid": "the Redis of these tests has no users"}


def _compare(
    real_celery: World, dsn: str, folder: Path, known: dict[str, str], pool: str, ask: str
) -> None:
    def observe(world: World) -> dict[str, Any]:
        place = copy_program(world, PROGRAM, folder / world.module)
        worker = ["-c", "2", "-P", pool]
        return normal(run_program(world, place, "fleet", worker, environment={"ASK": ask}))

    theirs = observe(real_celery)
    ours = observe(pgcelery_world(dsn))
    if ask == "everything":
        listed = ours["cli: commands"]
        added = [sorted({*a} - {*b}) for a, b in zip(listed, theirs["cli: commands"], strict=True)]
        assert added == list(OWN)
        ours["cli: commands"] = [
            [one for one in found if one not in own] for found, own in zip(listed, OWN, strict=True)
        ]
    found = dict(differences(ours, theirs))
    unknown = [f"{path}: {text}" for path, text in found.items() if path not in known]
    assert not unknown, "\n".join(unknown)
    assert set(known) <= set(found), "a difference is gone"


def test_every_command_is_answered_as_by_celery(
    real_celery: World, dsn: str, tmp_path: Path
) -> None:
    _compare(real_celery, dsn, tmp_path, DIFFERS | STATS_DIFFER, "prefork", "everything")


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_have_the_same_numbers(
    real_celery: World, dsn: str, tmp_path: Path, pool: str
) -> None:
    _compare(real_celery, dsn, tmp_path, STATS_DIFFER, pool, "numbers")
