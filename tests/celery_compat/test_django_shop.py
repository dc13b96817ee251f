"""examples/django_shop under real Celery and under pgcelery: what can be observed is equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.celery_compat.worlds import (
    EXAMPLES,
    World,
    copy_program,
    differences,
    normal,
    pgcelery_world,
    run_program,
)

pytestmark = [pytest.mark.real_celery, pytest.mark.slow, pytest.mark.timeout(120)]


def test_a_django_project_behaves_the_same(
    real_celery: World, fresh_dsn: str, tmp_path: Path
) -> None:
    runs = []
    for world in (real_celery, pgcelery_world(fresh_dsn)):
        folder = copy_program(world, EXAMPLES / "django_shop", tmp_path / world.module)
        runs.append(
            run_program(
                world,
                folder,
                "config",
                ["-Q", "store,mail", "-c", "2"],
                environment={"SHOP_DB": str(tmp_path / f"{world.module}.sqlite3")},
                prepare=[["manage.py", "migrate", "-v0"]],
            )
        )
    theirs, ours = runs
    assert dict(differences(normal(ours), normal(theirs))) == {}
    assert [theirs.exit_code, ours.exit_code] == [0, 0]
