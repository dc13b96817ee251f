"""What happens when the database of the results is away.

Source: Celery 5.7, `celery.backends.base.Backend._ensure_retryable` and its four settings.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from typing import Any

from kombu.exceptions import OperationalError

from pgcelery.engine import DatabaseUnavailable

logger = logging.getLogger("celery.backends.base")


def retried(
    app: Any,
    func: Callable[..., Any],
    *args: Any,
    lost: Callable[[], BaseException] | None = None,
    **kwargs: Any,
) -> Any:
    """Call `func`; with ``result_backend_always_retry``, again while the database is away.

    Args:
        app: The application.
        func: What to call.
        *args: Its arguments.
        lost: Makes the exception to raise when it was tried often enough.
        **kwargs: Its arguments.

    Raises:
        kombu.exceptions.OperationalError: The database is away.
    """
    tried = 0
    while True:
        try:
            return func(*args, **kwargs)
        except DatabaseUnavailable as exc:
            conf = app.conf
            if not conf.result_backend_always_retry:
                raise OperationalError(str(exc)) from exc
            if tried >= conf.result_backend_max_retries:
                raise (OperationalError(str(exc)) if lost is None else lost()) from exc
            tried += 1
            logger.warning("The result backend is away, retry %s: %s", tried, exc)
            longest = min(
                conf.result_backend_max_sleep_between_retries_ms,
                conf.result_backend_base_sleep_between_retries_ms * 2 ** min(tried, 30),
            )
            threading.Event().wait(random.uniform(0, longest) / 1000)
