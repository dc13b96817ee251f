"""The parts of an app, each made when it is first needed from a class that a name stands for.

Source: Celery 5.7, ``Celery`` and its ``*_cls`` attributes.
"""

from __future__ import annotations

import threading
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kombu.common import oid_from

from pgcelery.compat.app import backends, pickling
from pgcelery.compat.loaders import get_loader_cls
from pgcelery.compat.utils.imports import instantiate

if TYPE_CHECKING:
    from pgcelery.compat.app.limiting import Limits
    from pgcelery.compat.workflow import Workflow
    from pgcelery.engine import Why

__all__ = ("Parts",)


class Parts:
    """What an app makes of its ``*_cls`` attributes, and the classes that are bound to it."""

    if TYPE_CHECKING:
        conf: Any
        _local: threading.local

    amqp_cls: Any = "pgcelery.compat.app.amqp:AMQP"
    backend_cls: Any = None
    control_cls: Any = "pgcelery.compat.app.control:Control"
    events_cls: Any = "pgcelery.compat.app.events:Events"
    loader_cls: Any = None
    log_cls: Any = "pgcelery.compat.app.log:Logging"

    def subclass_with_self(
        self,
        Class: Any,
        name: str | None = None,
        attribute: str = "app",
        reverse: str | None = None,
        keep_reduce: bool = False,
        **kw: Any,
    ) -> Any:
        """Make a subclass whose attribute `attribute` is this app; it pickles through the app."""
        return pickling.subclass_with_app(self, Class, name, attribute, reverse, keep_reduce, kw)

    @cached_property
    def Worker(self) -> Any:
        """The worker of the command line, bound to this app."""
        return self.subclass_with_self("pgcelery.compat.apps.worker:Worker")

    @cached_property
    def WorkController(self) -> Any:
        """The worker, bound to this app."""
        return self.subclass_with_self("pgcelery.compat.worker:WorkController")

    @cached_property
    def Beat(self) -> Any:
        """The beat of the command line, bound to this app."""
        return self.subclass_with_self("pgcelery.compat.apps.beat:Beat")

    @cached_property
    def AsyncResult(self) -> Any:
        """The result of one call, bound to this app."""
        return self.subclass_with_self("pgcelery.compat.result:AsyncResult")

    @cached_property
    def ResultSet(self) -> Any:
        """The results of several calls, bound to this app."""
        return self.subclass_with_self("pgcelery.compat.result:ResultSet")

    @cached_property
    def GroupResult(self) -> Any:
        """The results of a group, bound to this app."""
        return self.subclass_with_self("pgcelery.compat.result:GroupResult")

    @cached_property
    def amqp(self) -> Any:
        """The queues and the router."""
        return instantiate(self.amqp_cls, app=self)

    @cached_property
    def _rulebook(self) -> Any:
        return instantiate("pgcelery.compat.app.ruling:Ruling", app=self)

    @cached_property
    def _heads(self) -> Any:
        return instantiate("pgcelery.compat.app.heads:Heads")

    @cached_property
    def control(self) -> Any:
        """Remote control of workers."""
        return instantiate(self.control_cls, app=self)

    @cached_property
    def events(self) -> Any:
        """Events."""
        return instantiate(self.events_cls, app=self)

    @cached_property
    def log(self) -> Any:
        """Logging."""
        return instantiate(self.log_cls, app=self)

    @cached_property
    def limits(self) -> Limits:
        """Limits as they stand, and changing them at run time; ours, not Celery's."""
        found: Limits = instantiate("pgcelery.compat.app.limiting:Limits", app=self)
        return found

    @cached_property
    def loader(self) -> Any:
        """The loader."""
        return get_loader_cls(self.loader_cls)(app=self)

    @cached_property
    def backend(self) -> Any:
        """The result backend."""
        return self._get_backend()

    def _get_backend(self) -> Any:
        chosen = self.backend_cls or self.conf.result_backend
        cls, url = backends.by_url(chosen, self.loader)
        return cls(app=self, url=url)

    @cached_property
    def oid(self) -> str:
        """An id of this app in this process."""
        return str(oid_from(self, threads=False))

    @property
    def thread_oid(self) -> str:
        """An id of this app in this thread."""
        try:
            return self._local.oid  # type: ignore[no-any-return]
        except AttributeError:
            oid = self._local.oid = str(oid_from(self, threads=True))
            return oid

    def workflow(self, id: Any, *, limit: int | None = 10_000) -> Workflow:
        """Look at a whole workflow; ours, not Celery's.

        Args:
            id: The workflow's id, that of any of its tasks, or a result.
            limit: Most tasks to read; None for all.

        Raises:
            pgcelery.workflow.WorkflowNotFound: A LookupError: nothing is known of it.
        """
        found: Workflow = instantiate("pgcelery.compat.workflow:Workflow", self, id, limit=limit)
        return found

    def why(self, id: str) -> Why | None:
        """Say where a task is and what keeps it from running; ours, not Celery's.

        Returns:
            None when nothing is known of it; else the one reason, with a sentence as its `str`.
        """
        found: Why | None = instantiate("pgcelery.compat.app.waiting:why", self, id)
        return found
