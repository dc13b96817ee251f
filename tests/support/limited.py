"""Tasks behind gates, sent by way of the engine's client."""

from __future__ import annotations

from typing import Any

from pgcelery.engine import Gate, NewJob

_ASIDE = "aside"  # a queue that nobody serves


def send(app: Any, name: str, *args: Any, gates: tuple[Gate, ...], **fields: Any) -> Any:
    """Send a task whose job has these gates; other fields of `NewJob` can be given too."""
    result = app.send_task(name, args, queue=_ASIDE)
    found = app.engine.job(result.id)
    assert found is not None
    app.engine.purge([_ASIDE])
    values = {"queue": "celery", "max_deliveries": found.max_deliveries, **fields}
    job = NewJob(id=found.id, name=found.name, payload=found.payload, gates=gates, **values)
    app.engine.enqueue([job])
    return result
