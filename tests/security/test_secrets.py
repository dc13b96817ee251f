"""A password is in nothing that is printed, whatever goes wrong."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from pgcelery.engine import Client, EngineConfig
from tests.security.conftest import PASSWORD, shop_of
from tests.support.process import Process
from tests.support.wait import wait_for

ENCODED = "%53%33cr3t%50a55"  # the same, percent-encoded
SHAPES = ("url", "encoded", "parameter", "keywords")


def shown(text: str) -> list[str]:
    return [line for line in text.splitlines() if PASSWORD in line or ENCODED in line]


class Place:
    """Where a database is, to be said in other shapes."""

    def __init__(self, dsn: str, user: str) -> None:
        known = conninfo_to_dict(dsn)
        self.user = user
        self.host, self.port = str(known["host"]), str(known.get("port") or 5432)
        self.name = str(known["dbname"])

    def dsn(self, shape: str, **other: str) -> str:
        host, port = other.get("host", self.host), other.get("port", self.port)
        if shape == "keywords":
            return (
                f"host={host} port={port} dbname={self.name} user={self.user} password={PASSWORD}"
            )
        where = {"host": host, "port": port}
        if shape == "parameter":
            rest = urlencode({**where, "user": self.user, "password": PASSWORD})
            return f"postgresql:///{self.name}?{rest}"
        word = ENCODED if shape == "encoded" else PASSWORD
        return f"postgresql://{self.user}:{word}@/{self.name}?{urlencode(where)}"


@pytest.fixture
def place(dsn: str) -> Iterator[Place]:
    user = f"secret_{secrets.token_hex(4)}"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            sql.SQL("create role {} login superuser password {}").format(
                sql.Identifier(user), PASSWORD
            )
        )
    yield Place(dsn, user)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(user)))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_run_at_debug_never_prints_it(
    place: Place, pgcelery: Callable[..., Process], project: Path, shape: str
) -> None:
    dsn = place.dsn(shape)
    worker = pgcelery(dsn, "worker", "-c", "1", "-n", "w@here", "-l", "debug", "-B", wait=False)
    worker.wait_for_output(r"w@here ready\.")
    shop = shop_of(project, dsn)
    with closing(shop["app"]):
        assert shop["add"].delay(1, 2).get(timeout=10) == 3
        assert shop["flaky"].delay().get(timeout=10) == "done"
        assert not shown(repr(shop["app"]) + repr(shop["app"].conf) + str(shop["app"].conf))
        assert not shown(shop["app"].conf.humanize())
        assert not shown(str(shop["app"].bugreport()))
        assert not shown(repr(shop["app"].connection()))
        assert not shown(shop["app"].backend.as_uri())
    for pid in (worker.pid, *_children(worker.pid)):
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        assert not shown(title)
    said = [
        pgcelery(dsn, *command.split()).output()
        for command in (
            "report", "inspect report", "inspect conf",
            "status", "db status",
        )
    ]  # fmt: skip
    with psycopg.connect(EngineConfig(dsn=dsn).dsn, autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()"
            " and usename = current_user"
        )
    wait_for(lambda: "database connection is back" in worker.output(), 20)
    worker.popen.terminate()
    worker.wait(20)
    assert "postgresql://" in worker.output() or "host=" in worker.output()
    assert not shown(worker.output() + "".join(said))


def _children(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "wrong", [{"host": "127.0.0.1", "port": "1"}, {"host": "nowhere.invalid"}, {"port": "bad"}]
)
def test_an_error_never_prints_it(
    place: Place, pgcelery: Callable[..., Process], shape: str, wrong: dict[str, str]
) -> None:
    dsn = place.dsn(shape, **wrong)
    for command in ("worker -c 1", "db status", "call shop.add -a [1,2]", "inspect ping"):
        process = pgcelery(dsn, *command.split())
        assert process.popen.returncode != 0
        assert not shown(process.output()), command


def test_a_wrong_password_and_a_broken_url_never_print_it(
    place: Place, pgcelery: Callable[..., Process]
) -> None:
    user = place.user
    place.user = "nobody_" + secrets.token_hex(3)
    for shape in SHAPES:
        process = pgcelery(place.dsn(shape), "db", "status")
        assert process.popen.returncode != 0
        assert not shown(process.output())
    place.user = user
    for broken in (
        f"postgresql://u:{PASSWORD}%@h/d",
        f"postgresql://u:{PASSWORD}@h:port/d",
        f"postgresql://u:{PASSWORD}@h/d?nonsense=1",
        f"postgresql://u:{PASSWORD}@[h/d",
        f"redis://u:{PASSWORD}@h/0",
        f"host=h password={PASSWORD} nonsense=1",
        f"host=h password='{PASSWORD}",
    ):
        for command in ("db status", "worker", "report"):
            process = pgcelery(broken, *command.split())
            assert not shown(process.output()), (broken, command)


def test_a_password_file_and_a_service_file_are_honoured(
    place: Place, pgcelery: Callable[..., Process], tmp_path: Path
) -> None:
    """As libpq does it: no password need be in the application."""
    (tmp_path / "pass").write_text(f"*:*:*:{place.user}:{PASSWORD}\n")
    (tmp_path / "pass").chmod(0o600)
    (tmp_path / "services").write_text(
        f"[shop]\nhost={place.host}\nport={place.port}\ndbname={place.name}\nuser={place.user}\n"
    )
    env = {"PGPASSFILE": str(tmp_path / "pass"), "PGSERVICEFILE": str(tmp_path / "services")}
    found = pgcelery("service=shop", "db", "status", **env)
    assert found.popen.returncode == 0, found.output()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in env.items():
            patch.setenv(name, value)
        with closing(Client(EngineConfig(dsn="service=shop"))) as client:
            client.check_schema()
            with client._connections.lend() as conn:
                assert conn.info.password == PASSWORD
                assert conn.info.user == place.user
    url = pgcelery("postgresql://?service=shop", "db", "status", **env)
    assert url.popen.returncode == 0, url.output()
    assert os.environ.get("PGSERVICEFILE") is None
