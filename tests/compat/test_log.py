from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgcelery.compat import signals
from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.log import Logging, TaskFormatter
from pgcelery.compat.utils.text import one_line

LOGGERS = ("", "celery", "celery.task", "celery.redirected")


@pytest.fixture(autouse=True)
def loggers_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = {name: _state(name) for name in LOGGERS}
    for name in LOGGERS:
        logging.getLogger(name).handlers = []
    monkeypatch.setattr(Logging, "_setup", False)
    for variable in ("CELERY_LOG_LEVEL", "CELERY_LOG_FILE"):
        monkeypatch.setenv(variable, "")
    yield
    for name, (handlers, level, propagate) in before.items():
        logger = logging.getLogger(name)
        for handler in set(logger.handlers) - set(handlers):
            handler.close()
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)
    logging.captureWarnings(False)


def _state(name: str) -> tuple[list[logging.Handler], int, bool]:
    logger = logging.getLogger(name)
    return logger.handlers[:], logger.level, logger.propagate


def _app(**conf: object) -> Celery:
    app = Celery("test", set_as_current=False, broker="postgresql://nobody@127.0.0.1:1/x")
    app.conf.update(conf)
    return app


def _record(name: str = "x") -> logging.LogRecord:
    return logging.LogRecord(name, logging.INFO, "f", 1, "hello", (), None)


def test_a_log_file_gets_celerys_two_formats(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    _app().log.setup("INFO", str(path))
    logging.getLogger("app.part").info("from the app")
    logging.getLogger("celery.task.mine").info("from a task")
    first, second = path.read_text().splitlines()
    assert first.endswith(": INFO/MainProcess] from the app")
    assert second.endswith(": INFO/MainProcess] ???[???]: from a task")


def test_the_format_is_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "w.log"
    _app(worker_log_format="<%(message)s>").log.setup("INFO", str(path))
    logging.getLogger("app").info("x")
    assert path.read_text() == "<x>\n"


def test_the_node_is_expanded_in_the_name_of_the_file(tmp_path: Path) -> None:
    _app().log.setup("INFO", str(tmp_path / "%n.log"), hostname="w7@host")
    assert (tmp_path / "w7.log").exists()


def test_logging_is_set_up_once_a_process(tmp_path: Path) -> None:
    app = _app()
    app.log.setup("INFO", str(tmp_path / "a.log"))
    assert app.log.already_setup
    assert app.log.setup("DEBUG", str(tmp_path / "b.log")) is None
    assert logging.getLogger().level == logging.INFO


def test_a_receiver_of_setup_logging_does_it_itself() -> None:
    seen = []
    before = logging.getLogger().handlers[:]

    @signals.setup_logging.connect(weak=False)
    def mine(loglevel: int, **kwargs: object) -> None:
        seen.append(loglevel)

    try:
        assert _app().log.setup("ERROR")
    finally:
        signals.setup_logging.disconnect(mine)
    assert seen == [logging.ERROR]
    assert logging.getLogger().handlers == before


def test_after_setup_signals_name_the_two_loggers() -> None:
    seen = []

    def root(logger: logging.Logger, **kwargs: object) -> None:
        seen.append(logger.name)

    signals.after_setup_logger.connect(root)
    signals.after_setup_task_logger.connect(root)
    try:
        _app().log.setup("INFO")
    finally:
        signals.after_setup_logger.disconnect(root)
        signals.after_setup_task_logger.disconnect(root)
    assert seen == ["root", "celery.task"]


def test_the_root_logger_keeps_its_handlers_when_it_is_not_hijacked() -> None:
    mine = logging.NullHandler(), logging.StreamHandler()
    logging.getLogger().handlers = list(mine)
    _app(worker_hijack_root_logger=False).log.setup("INFO")
    assert logging.getLogger().handlers == list(mine)
    logging.getLogger().handlers = []


def test_the_task_format_names_the_task_that_runs() -> None:
    app = _app(task_always_eager=True)
    formatter = TaskFormatter("%(task_name)s %(task_id)s %(message)s", use_color=False)
    lines = []

    @app.task(name="speak")
    def speak() -> None:
        lines.append(formatter.format(_record()))

    speak.apply(task_id="id-1")
    assert lines == ["speak id-1 hello"]
    assert formatter.format(_record()) == "??? ??? hello"


def test_colours_only_on_a_terminal_without_a_log_file() -> None:
    log = _app().log
    assert not log.supports_color(None, None)
    assert not log.supports_color(True, "file")
    assert not log.supports_color(False, None)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("plain ключ 👩", "plain ключ 👩"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31m\x85\u2028\u202e\ud800\0", r"\x1b[31m\x85\u2028\u202e\ud800\x00"),
        (7, "7"),
    ],
)
def test_what_could_forge_a_line_is_escaped(text: object, line: str) -> None:
    assert one_line(text) == line
