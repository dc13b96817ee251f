"""Two worlds for one program: real Celery on Redis, and pgcelery on PostgreSQL.

A program is a folder with Celery tasks and a driver that prints a JSON trace. Each world gets its
own copy; pgcelery's is rewritten by `examples/swap.py`, as a user would. What can be seen is the
driver's trace and the worker's log, both with ids replaced by names that are equal in every run.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.wait import wait_for

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
READY = " ready."


@dataclass(frozen=True)
class World:
    """One library and where its broker is."""

    module: str  #: celery or pgcelery
    environment: dict[str, str]

    def env(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        """The environment of this world's processes; nothing of the machine's own settings."""
        mine = ("CELERY", "PGCELERY", "DJANGO", "PYTEST")
        base = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
        return base | {"PYTHONWARNINGS": "ignore"} | self.environment | (extra or {})


def pgcelery_world(dsn: str) -> World:
    """pgcelery on a database; the settings say the same twice, as docs/moving-an-application.md."""
    return World("pgcelery", {"CELERY_BROKER_URL": dsn, "CELERY_RESULT_BACKEND": dsn})


@contextlib.contextmanager
def redis_server() -> Iterator[str]:
    """A Redis of our own on a free port; yields its URL."""
    binary = shutil.which("redis-server")
    assert binary is not None
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        command = [
            binary,
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            folder,
            "--save",
            "",
        ]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(lambda: _answers(port, process.pid))
                yield f"redis://127.0.0.1:{port}"
            finally:
                process.terminate()


def _answers(port: int, pid: int) -> bool:
    """Whether it is this Redis: between our choice and its bind another may have got the port."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1) as s:
            s.sendall(b"INFO server\r\n")
            return f"process_id:{pid}\r\n".encode() in s.recv(65536)
    except OSError:
        return False


def copy_program(world: World, source: Path, target: Path) -> Path:
    """The program as this world runs it: for pgcelery with its imports swapped, nothing else."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.sqlite3"))
    if world.module == "pgcelery":
        swap = [sys.executable, str(EXAMPLES / "swap.py"), str(target)]
        subprocess.run(swap, check=True, capture_output=True)
    return target


@dataclass
class Run:
    """What one world let us observe."""

    trace: dict[str, Any]
    labels: dict[str, str]
    log: list[str]
    exit_code: int


def run_program(
    world: World,
    folder: Path,
    app: str,
    worker_args: list[str],
    *,
    environment: dict[str, str] | None = None,
    prepare: list[list[str]] | None = None,
) -> Run:
    """Run a worker, then the driver beside it, then stop the worker warm."""
    env = world.env(environment)
    if world.module == "pgcelery":
        _checked([sys.executable, "-m", "pgcelery", "-A", app, "db", "migrate"], folder, env)
    for command in prepare or []:
        _checked([sys.executable, *command], folder, env)
    command = [sys.executable, "-m", world.module, "-A", app, "worker", "-l", "INFO", "-n", "w@h"]
    log = folder.parent / f"{folder.name}.log"
    with log.open("w") as file:
        worker = subprocess.Popen(
            [*command, *worker_args], cwd=folder, env=env, stdout=file, stderr=file
        )
        try:
            wait_for(lambda: READY in log.read_text() or worker.poll() is not None, timeout_s=30)
            assert worker.poll() is None, f"the worker died:\n{log.read_text()}"
            printed = _checked([sys.executable, "driver.py"], folder, env, log)
            worker.terminate()
            code = worker.wait(20)
        finally:
            if worker.poll() is None:
                worker.kill()
                worker.wait()
    found = json.loads(printed)
    return Run(found["trace"], found["labels"], log.read_text().splitlines(), code)


def _checked(command: list[str], folder: Path, env: dict[str, str], log: Path | None = None) -> str:
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=100)
    if done.returncode:
        worker = f"\nworker:\n{log.read_text()[-4000:]}" if log else ""
        raise AssertionError(f"{command}: {done.stderr[-4000:]}{worker}")
    return done.stdout


UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def rename(text: str, labels: dict[str, str]) -> str:
    """Replace ids by their names, and what else differs from run to run by a placeholder."""
    text = UUID.sub(lambda m: f"<{labels.get(m[0], 'id')}>", text)
    text = re.sub(r"(succeeded in )[\d.e-]+s", r"\1<t>s", text)
    text = re.sub(r"gen\d+@\S+?(?=['\"])", "<origin>", text)
    text = re.sub(r"\bpgcelery(\.compat)?(?=\.\w)", "celery", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(\+00:00|Z)?", "<time>", text)
    return re.sub(r"/tmp/[^'\"\s]+", "<path>", text)


def normal(run: Run) -> dict[str, Any]:
    """The trace with names in the place of ids."""
    text = rename(json.dumps(run.trace), run.labels)
    trace: dict[str, Any] = json.loads(text)
    return trace


RECORD = re.compile(r"^(DEBUG|INFO|WARNING|ERROR|CRITICAL)\|([^|]+)\|")


def log_by_task(run: Run) -> dict[str, list[str]]:
    """Each named task's log records in order, those of the parent before those of its children.

    A record's following lines are reduced to the last one, the exception of its traceback.
    """
    records: list[list[str]] = []
    for line in run.log:
        if RECORD.match(line):
            records.append([line])
        elif records and line.strip():
            records[-1].append(line)
    by_task: dict[str, list[str]] = defaultdict(list)
    for record in sorted(records, key=lambda r: "|MainProcess|" not in r[0]):
        text = re.sub(r"ForkPoolWorker-\d+", "child", rename(record[0], run.labels))
        if "Traceback (most recent call last):" in record:
            text += " ... " + rename(record[-1], run.labels)
        for name in dict.fromkeys(re.findall(r"\[<?([^\]>]+)>?\]", text)):
            if name in run.labels.values():
                by_task[name].append(text)
    return dict(by_task)


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every leaf that differs: where, and a sentence."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in {**theirs, **ours}:
            if key in ours and key in theirs:
                yield from differences(ours[key], theirs[key], f"{path}.{key}".lstrip("."))
            else:
                who = "pgcelery" if key in ours else "Celery"
                value = ours.get(key, theirs.get(key))
                yield f"{path}.{key}".lstrip("."), f"only {who} has it: {value!r}"
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for k, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(a, b, f"{path}[{k}]")
    elif ours != theirs:
        yield path, f"pgcelery {ours!r}, Celery {theirs!r}"


def changed(ours: list[str], theirs: list[str]) -> list[str]:
    """The lines that differ: "-" only Celery logs, "+" only pgcelery."""
    lines = difflib.unified_diff(theirs, ours, n=0, lineterm="")
    return [line for line in lines if not line.startswith(("---", "+++", "@@"))]
