"""The side of an app that faces the database.

Source: Celery 5.7, ``Celery.connection`` and its kin; they say what they do here.
"""

from __future__ import annotations

import os
import threading
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pgcelery.compat import dsn
from pgcelery.compat.app.broker import Connection, ConnectionPool, ProducerPool
from pgcelery.compat.app.settings import engine_config, mention_ignored
from pgcelery.compat.events import batch
from pgcelery.compat.utils.objects import FallbackContext
from pgcelery.engine import Client, EngineConfig, EventWriter, Transactions

__all__ = ("Brokerage",)

#: Apps that have used the database in this process.
_used: weakref.WeakSet[Brokerage] = weakref.WeakSet()


class Brokerage:
    """The engine's client, and what stands where Celery has connections and pools."""

    if TYPE_CHECKING:
        conf: Any
        amqp: Any
        on_after_fork: Any
        _engine: Client | None
        _lock: threading.RLock

    @cached_property
    def engine_config(self) -> EngineConfig:
        """The engine's configuration, from the settings; starts an embedded server if one is meant.

        Raises:
            ImproperlyConfigured: A setting names something that cannot be used.
        """
        mention_ignored(self.conf)
        return engine_config(self.conf)

    @property
    def engine(self) -> Client:
        """The engine's client; a server of our own making gets its schema at once."""
        if self._engine is None:
            with self._lock:
                if self._engine is None:
                    self._engine = self._make_engine()
        return self._engine

    def _make_engine(self) -> Client:
        client = Client(self.engine_config)
        if dsn.target(self.conf).kind != "database":
            client.migrate()
        _used.add(self)
        return client

    @cached_property
    def event_writer(self) -> EventWriter:
        """What sends this app's events, behind every dispatcher."""
        return EventWriter(
            lambda: self.engine, batch.pack, keep_s=batch.keep_s(self.conf.event_queue_ttl)
        )

    @cached_property
    def transactions(self) -> Transactions:
        """What makes the transactions that tasks run in."""
        return Transactions(self.engine)

    def close_engine(self) -> None:
        """Close the connections to the database; they open again when needed."""
        writer = self.__dict__.pop("event_writer", None)
        if writer is not None:
            writer.close()
        with self._lock:
            client, self._engine = self._engine, None
            self.__dict__.pop("engine_config", None)
            transactions = self.__dict__.pop("transactions", None)
        if transactions is not None:
            transactions.close()
        if client is not None:
            client.close()

    def _after_fork(self) -> None:
        self._lock = threading.RLock()
        self.on_after_fork.send(sender=self)

    def connection(
        self, hostname: str | None = None, *args: Any, url: str | None = None, **options: Any
    ) -> Connection:
        """Give a connection, which opens nothing until it is asked to."""
        return Connection(self, url or (hostname if hostname and "://" in hostname else None))

    broker_connection = connection

    def connection_for_read(self, url: str | None = None, **options: Any) -> Connection:
        """Give a connection for a worker."""
        return self.connection(url=url, **options)

    def connection_for_write(self, url: str | None = None, **options: Any) -> Connection:
        """Give a connection for who sends tasks."""
        return self.connection(url=url, **options)

    def connection_or_acquire(
        self, connection: Any = None, pool: bool = True, *_: Any, **__: Any
    ) -> FallbackContext:
        """Give a context with this connection, or with one."""
        return FallbackContext(connection, self.connection_for_write)

    default_connection = connection_or_acquire

    def producer_or_acquire(self, producer: Any = None) -> FallbackContext:
        """Give a context with this producer, or with one."""
        return FallbackContext(producer, self.producer_pool.acquire)

    default_producer = producer_or_acquire

    @property
    def pool(self) -> ConnectionPool:
        """Something to acquire a connection from."""
        return ConnectionPool(self)

    @property
    def producer_pool(self) -> ProducerPool:
        """Something to acquire a producer from."""
        pool: ProducerPool = self.amqp.producer_pool
        return pool

    def select_queues(self, queues: Any = None) -> None:
        """Consume from these queues only."""
        self.amqp.queues.select(queues)


def _after_fork() -> None:
    for app in list(_used):
        app._after_fork()


os.register_at_fork(after_in_child=_after_fork)
