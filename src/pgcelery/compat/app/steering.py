"""The part of ``app.control`` that Celery has not: pause queues, drain workers, change labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kombu.exceptions import OperationalError

from pgcelery.engine import DatabaseUnavailable

__all__ = ("Steering", "kombu_errors")


@contextmanager
def kombu_errors() -> Iterator[None]:
    """Turn an unreachable database into the error that Celery applications catch."""
    try:
        yield
    except DatabaseUnavailable as exc:
        raise OperationalError(str(exc)) from exc


class Steering:
    """What `Control` does besides Celery's commands."""

    if TYPE_CHECKING:
        app: Any

        def broadcast(self, command: str, *args: Any, **kwargs: Any) -> Any:
            """See `Control`."""

    def pause_queue(self, queue: str, *, create: bool = False) -> None:
        """Have no worker take tasks of a queue any more; needs none to be alive.

        Holds from each worker's next claim on, also for the next steps of workflows that run, for
        what comes due, and for what waits at limits. What runs goes on, and tasks can be sent.

        Args:
            queue: Its name.
            create: Make the queue if none of that name has ever been used.

        Raises:
            pgcelery.engine.UnknownQueue: A LookupError: there is none, and it is not one that the
                app declares.
            kombu.exceptions.OperationalError: The database cannot be reached.
        """
        with kombu_errors():
            self.app.engine.pause(queue, create=create or queue in self.app.amqp.queues)

    def resume_queue(self, queue: str) -> bool:
        """Have a queue's tasks taken again, at once; whether it was paused.

        Raises:
            pgcelery.engine.UnknownQueue: There is none of that name.
            kombu.exceptions.OperationalError: The database cannot be reached.
        """
        with kombu_errors():
            return bool(self.app.engine.resume(queue))

    def paused_queues(self) -> dict[str, datetime]:
        """Queues that are paused, and since when."""
        with kombu_errors():
            found: dict[str, datetime] = self.app.engine.paused()
        return found

    def drain(self, destination: Sequence[str] | str | None = None, **kwargs: Any) -> Any:
        """Have workers take no more tasks, but live on and finish what runs."""
        return self.broadcast("drain", arguments={}, destination=destination, **kwargs)

    def undrain(self, destination: Sequence[str] | str | None = None, **kwargs: Any) -> Any:
        """Have drained workers take tasks again."""
        return self.broadcast("undrain", arguments={}, destination=destination, **kwargs)

    def set_labels(
        self,
        labels: Mapping[str, Any],
        destination: Sequence[str] | str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Change labels of workers while they live; a label that is None or "" is taken away."""
        said = [f"{name}={'' if value is None else value}" for name, value in labels.items()]
        return self.broadcast(
            "set_labels", arguments={"labels": said}, destination=destination, **kwargs
        )
