"""Remote control commands that Celery has not: drain a worker, change its labels."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.worker.panel import State, control_command, inspect_command, nok, ok
from pgcelery.engine.placement import parse_change, parse_label

__all__ = ("read_labels",)

logger = logging.getLogger("celery.worker.control")


def read_labels(setting: Any, given: Iterable[str] | None) -> dict[str, str]:
    """Put the labels of a worker together: the setting's, and over them those of its start.

    Args:
        setting: ``worker_labels``, a mapping or texts like `given`.
        given: ``name=value`` each.

    Raises:
        ImproperlyConfigured: One has no name, or is not of that form.
    """
    labels: dict[str, str] = {}
    try:
        if isinstance(setting, Mapping):
            labels.update((str(name), str(value)) for name, value in setting.items())
        else:
            labels.update(parse_label(text) for text in setting or ())
        labels.update(parse_label(text) for text in given or ())
    except (TypeError, ValueError) as exc:
        raise ImproperlyConfigured(f"worker_labels: {exc}") from exc
    return labels


@control_command()
def drain(state: State, **kwargs: Any) -> Any:
    """Take no more tasks, but live on and finish what runs."""
    state.consumer.controller.node.drain()
    logger.warning("Draining: no more tasks are taken.")
    return ok("draining")


@control_command()
def undrain(state: State, **kwargs: Any) -> Any:
    """Take tasks again after drain."""
    state.consumer.controller.node.undrain()
    logger.warning("No longer draining.")
    return ok("taking tasks again")


@control_command(variadic="labels", signature="[name1=value1 [name2= [...]]]")
def set_labels(state: State, labels: Any, **kwargs: Any) -> Any:
    """Change labels of worker(s); one without a value is taken away."""
    try:
        changes = dict(parse_change(text) for text in labels)
    except (AttributeError, ValueError) as exc:
        return nok(str(exc))
    state.consumer.controller.node.set_labels(changes)
    logger.info("Labels changed by remote: %s", ", ".join(labels))
    return ok("labels changed")


@inspect_command()
def labels(state: State, **kwargs: Any) -> Any:
    """Labels of a worker, by which tasks are placed."""
    return state.consumer.controller.node.labels
