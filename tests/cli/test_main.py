from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from pgcelery.cli import main
from pgcelery.cli.main import app_option_first, celery
from pgcelery.compat import _state

DEAD = "postgresql://me:s3cret@127.0.0.1:1/nothing"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "proj_cli.py").write_text(
        "from pgcelery import Celery\n"
        f"app = Celery('proj_cli', broker={DEAD!r})\n"
        "@app.task(shared=False)\n"
        "def add(x, y):\n"
        "    return x + y\n"
    )
    (tmp_path / "proj_broken.py").write_text("import os\nraise KeyError('left out')\n")
    (tmp_path / "proj_empty.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_state._tls, "current_app", None)
    monkeypatch.setattr(_state, "default_app", None)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("proj_cli", "proj_broken", "proj_empty"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def run(*args: str, **env: str) -> Result:
    return CliRunner().invoke(celery, args, env=env, auto_envvar_prefix="CELERY")


def test_the_version_is_said() -> None:
    assert run("--version").output.endswith("(pgcelery)\n")


def test_help_lists_every_command_without_importing_one() -> None:
    code = (
        "import sys; from pgcelery.cli.main import celery;"
        "celery.main(['--help'], standalone_mode=False);"
        "print([m for m in sys.modules if m.startswith('pgcelery.cli.')])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for name in main.COMMANDS:
        assert f"  {name} " in out.stdout
    assert "pgcelery.cli.worker" not in out.stdout


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_has_help(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_an_unknown_command_is_answered_with_the_closest() -> None:
    result = run("wroker")
    assert result.exit_code == 2
    assert "No such command 'wroker'. Did you mean worker?" in result.output


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["worker", "-A", "p", "-l", "info"], ["-A", "p", "worker", "-l", "info"]),
        (["-A", "p", "worker"], ["-A", "p", "worker"]),
        (["worker", "--app=p"], ["--app=p", "worker"]),
        (["worker", "-Ap"], ["-Ap", "worker"]),
        (["-b", "worker", "call", "t", "--", "-A", "x"],) * 2,
        (["--help"],) * 2,
    ],
)
def test_the_app_option_may_stand_after_the_command(args: list[str], expected: list[str]) -> None:
    assert app_option_first(args) == expected


def test_an_app_whose_module_is_missing_is_a_usage_error(project: Path) -> None:
    result = run("-A", "nowhere_at_all", "report")
    assert result.exit_code == 2
    assert "Unable to load celery application. The module nowhere_at_all was not found." in (
        result.output
    )


def test_a_module_without_an_app_is_a_usage_error(project: Path) -> None:
    result = run("-A", "proj_empty", "report")
    assert result.exit_code == 2
    assert "Unable to load celery application." in result.output
    assert "has no attribute 'celery'" in result.output


def test_a_module_that_raises_is_named_with_the_place(project: Path) -> None:
    result = run("-A", "proj_broken", "report")
    assert result.exit_code == 2
    assert "proj_broken.py:2: KeyError: 'left out'" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "args", [["call", "proj_cli.add", "-a", "[1,2]"], ["status"], ["purge", "-f"], ["worker"]]
)
def test_an_unreachable_database_is_one_sentence_and_69(project: Path, args: list[str]) -> None:
    out = subprocess.run(
        [sys.executable, "-m", "pgcelery", "-A", "proj_cli", *args],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert out.returncode == 69, out.stderr
    assert "Error: Cannot reach the database" in out.stderr
    assert "s3cret" not in out.stdout + out.stderr
    assert "Traceback" not in out.stderr


def test_an_unknown_option_is_a_usage_error(project: Path) -> None:
    result = run("-A", "proj_cli", "worker", "--no-such-thing")
    assert result.exit_code == 2
    assert "No such option" in result.output


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["--autoscale", "many"], "autoscale is the most and the least number of processes"),
        (["--autoscale", "0"], "autoscale is the most and the least number of processes"),
        (["-P", "gevent"], "There is no gevent pool"),
        (["--pool-start-method", "spawn"], "spawn is not available"),
        (["-c", "many"], "must be a non-negative integer or 'auto'"),
        (["worker.no_such_setting=1"], "Unable to parse extra configuration"),
    ],
)
def test_what_a_worker_cannot_do_is_refused(project: Path, args: list[str], sentence: str) -> None:
    result = run("-A", "proj_cli", "worker", *args)
    assert result.exit_code == 2
    assert sentence in result.output


def test_no_color_takes_any_value(project: Path) -> None:
    result = run("-A", "proj_cli", "report", NO_COLOR="x")
    assert result.exit_code == 0, result.output
    assert "software -> celery:" in result.output


def test_options_are_read_from_the_environment(project: Path) -> None:
    result = run("-A", "proj_cli", "call", "proj_cli.add", CELERY_CALL_ARGS="{}")
    assert "{} was not an array" in result.output
    result = run("-A", "proj_cli", "call", "proj_cli.add", PGCELERY_CALL_ARGS="7")
    assert "7 was not an array" in result.output


def test_a_plugin_that_does_not_load_breaks_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name, value = "ruin", "no.where:cmd"

        def load(self) -> click.Command:
            raise ImportError("gone")

    monkeypatch.setattr(main, "_plugins", lambda: [Broken()])
    assert "ruin" in run("--help").output
    result = run("ruin", "--any")
    assert result.exit_code == 1
    assert "The plugin ruin (no.where:cmd) cannot be loaded: ImportError('gone')" in result.output


def test_the_app_adds_options_to_the_worker(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "proj_options.py").write_text(
        "import click\nfrom proj_cli import app\n"
        "app.user_options['worker'].add(click.Option(('--flavour',), help='Of the day.'))\n"
    )
    monkeypatch.delitem(sys.modules, "proj_options", raising=False)
    assert "--flavour" in run("-A", "proj_options", "worker", "--help").output
    assert "--flavour" not in run("worker", "--help").output


def test_inspect_lists_its_commands() -> None:
    result = run("inspect", "--list")
    assert result.exit_code == 0
    for name in ("active", "ping", "query_task [id1", "registered", "scheduled", "stats"):
        assert name in result.output


def test_an_unknown_inspect_command_is_a_usage_error(project: Path) -> None:
    result = run("-A", "proj_cli", "inspect", "nothing")
    assert result.exit_code == 2
    assert "Command nothing not recognized. Available inspect commands:" in result.output


LOADED = """
import atexit, gc
gc.collect()
before = [one["collections"] for one in gc.get_stats()]
kept = [[] for _ in range(100_000)]
print("collected", [one["collections"] for one in gc.get_stats()] != before)
atexit.register(lambda: print("threshold", gc.get_threshold()[0]))
from pgcelery import Celery
app = Celery("proj_cli", broker="%s")
"""


@pytest.mark.parametrize(("chosen", "after"), [("", 1234), ("gc.set_threshold(9)", 9)])
def test_a_workers_app_is_loaded_without_collecting_garbage(
    chosen: str, after: int, project: Path
) -> None:
    (project / "proj_cli.py").write_text(LOADED % DEAD + chosen)
    code = (
        "import gc, sys; from pgcelery.cli.main import main; gc.set_threshold(1234);"
        "sys.argv = ['pgcelery', '-A', 'proj_cli', 'worker']; main()"
    )
    line = [sys.executable, "-c", code]
    out = subprocess.run(line, capture_output=True, text=True, cwd=project).stdout
    assert "collected False\n" in out
    assert f"threshold {after}\n" in out  # as it was, or as the application wants it
