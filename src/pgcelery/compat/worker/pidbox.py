"""Takes remote control messages and answers them.

Source: Celery 5.7, ``celery.worker.pidbox``.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.utils import json

from pgcelery.compat.exceptions import WorkerShutdown
from pgcelery.compat.worker import control, panel, steering
from pgcelery.engine import EngineError

__all__ = ("Pidbox",)

# Kombu does not say its types.
dumps: Any = json.dumps
loads: Any = json.loads

logger = logging.getLogger("celery.worker.pidbox")

#: importing the built-in commands is what registers them
BUILTIN = (*control.Panel.data, *steering.__all__)


class Pidbox:
    """The mailbox of one `WorkController`."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker

    def on_message(self, body: bytes, reply_to: str | None) -> None:
        """Run one command, and answer if somebody waits for it; never raises."""
        answer = self._run(body)
        if reply_to is not None:
            self._answer(reply_to, answer)

    def catch_up(self) -> None:
        """Run the commands that were kept for workers to come.

        Raises:
            EngineError: They cannot be read.
        """
        for body in self._worker.app.engine.kept_messages():
            self._run(body)

    def _run(self, body: bytes) -> Any:
        worker = self._worker
        worker.app.clock.forward()
        state = panel.State(worker.app, worker.hostname, worker.consumer)
        try:
            message = loads(body.decode())
            return panel.call(state, message["method"], dict(message.get("arguments") or {}))
        except WorkerShutdown as exc:
            worker.stop(exitcode=int(exc.code or 0))
            return panel.ok("shutting down")
        except SystemExit as exc:
            worker.exitcode = int(exc.code or 0)
            worker.terminate()
            return panel.ok("terminating")
        except Exception:
            # Bytes that are no command: whoever can write them must not be able to end the worker.
            logger.exception("Unreadable remote control message")
            return panel.nok("not a command")

    def _answer(self, reply_to: str, answer: Any) -> None:
        worker = self._worker
        try:
            body = dumps(answer)
        except (TypeError, ValueError) as exc:
            body = dumps(panel.nok(repr(exc)))
        try:
            worker.app.engine.reply(reply_to, worker.hostname, body.encode())
        except EngineError as exc:
            logger.error("Cannot send a remote control reply: %s", exc)
