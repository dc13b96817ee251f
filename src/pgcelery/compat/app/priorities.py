"""Priorities: Celery's numbers, and the engine's, where 0 is claimed first.

Source: Celery 5.7, userguide "Routing Tasks", RabbitMQ and Redis message priorities. With RabbitMQ
the highest number is first and a message without one counts as 0, the last; with kombu's Redis
transport 0 is first, and a message without one counts as 0 as well. Which of these an application
was written for is told by `task_priority_direction`.
"""

from __future__ import annotations

from typing import Any

from pgcelery.compat.exceptions import ImproperlyConfigured

__all__ = ("MAX_PRIORITY", "Priorities")

#: Celery counts priorities from 0 to 9.
MAX_PRIORITY = 9

#: The highest that RabbitMQ's queues can have (``x-max-priority``).
_MOST = 255

DIRECTIONS = ("amqp", "redis")


class Priorities:
    """How an app counts priorities.

    Args:
        conf: Its settings. `task_queue_max_priority` is the highest that counts, default 9; higher
            ones count as that.

    Raises:
        ImproperlyConfigured: A setting has a value that it cannot have.
    """

    def __init__(self, conf: Any) -> None:
        direction, highest = conf.task_priority_direction, conf.task_queue_max_priority
        if direction not in DIRECTIONS:
            raise ImproperlyConfigured(
                f"task_priority_direction is 'amqp' (9 first) or 'redis' (0 first), not "
                f"{direction!r}"
            )
        if highest is None:
            highest = MAX_PRIORITY
        if isinstance(highest, bool) or not isinstance(highest, int) or not 1 <= highest <= _MOST:
            raise ImproperlyConfigured(f"task_queue_max_priority is 1 to {_MOST}, not {highest!r}")
        self.highest: int = highest
        #: the engine's number for 0; None where the numbers are the engine's own
        self._zero = max(highest, MAX_PRIORITY) if direction == "amqp" else None

    def to_engine(self, value: Any) -> int:
        """Give the engine's number for a task's.

        Raises:
            TypeError: It is no number.
        """
        if value is None:
            value = 0
        elif not isinstance(value, int):
            raise TypeError(f"priority must be a number from 0 to {self.highest}, not {value!r}")
        counted: int = min(max(value, 0), self.highest)
        return counted if self._zero is None else self._zero - counted

    def from_engine(self, value: int) -> int:
        """Give the task's number for the engine's."""
        return value if self._zero is None else self._zero - value
