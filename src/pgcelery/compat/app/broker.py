"""What stands where Celery has kombu's connections, pools and producers.

They hold nothing: the engine has its own connections. They exist because applications and libraries
open them to see whether the broker is there, read its URL, or pass a producer on.

Source: Celery 5.7, userguide "Connecting" and ``kombu.Connection``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Any, NoReturn

import psycopg
from kombu.exceptions import OperationalError
from psycopg.conninfo import conninfo_to_dict

from pgcelery.compat import dsn
from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.engine import EngineError

__all__ = ("Connection", "ConnectionPool", "Producer", "ProducerPool")


class Transport:
    """What a connection says about the broker it leads to."""

    driver_type = "postgresql"
    driver_name = "psycopg"
    connection_errors: tuple[type[BaseException], ...] = (OperationalError, psycopg.Error)
    channel_errors: tuple[type[BaseException], ...] = (psycopg.Error,)
    recoverable_connection_errors = connection_errors
    recoverable_channel_errors = channel_errors

    def driver_version(self) -> str:
        """Give the version of the driver."""
        return version("psycopg")


class Connection:
    """The way to the database of an app.

    Args:
        app: The app.
        url: Ignored unless it names another broker, which is an error: see `dsn.target`.
    """

    transport_cls = "postgresql"
    virtual_host = "/"

    def __init__(self, app: Any, url: str | None = None, **options: Any) -> None:
        self.app = app
        self.transport = Transport()
        self._connected = False
        if url:
            dsn.target({"broker_url": url})

    def _parameters(self) -> dict[str, Any]:
        return conninfo_to_dict(self.app.engine_config.dsn)

    @property
    def hostname(self) -> str:
        """Where the database is."""
        return str(self._parameters().get("host") or "localhost")

    @property
    def port(self) -> int:
        """The database's port."""
        return int(self._parameters().get("port") or 5432)

    @property
    def userid(self) -> str | None:
        """Who connects."""
        return self._parameters().get("user")

    @property
    def connected(self) -> bool:
        """Whether `connect` or `ensure_connection` has found the database."""
        return self._connected

    connection_errors = Transport.connection_errors
    channel_errors = Transport.channel_errors
    recoverable_connection_errors = Transport.connection_errors
    recoverable_channel_errors = Transport.channel_errors

    def as_uri(self, include_password: bool = False, mask: str = "**", **_: Any) -> str:
        """Give the database's URL, or its keywords if it was given so."""
        text: str = self.app.engine_config.dsn
        return text if include_password else dsn.mask(text)

    def info(self) -> dict[str, Any]:
        """Give the parts of the URL, without the password."""
        known = self._parameters()
        return {
            "hostname": self.hostname,
            "userid": self.userid,
            "virtual_host": known.get("dbname") or "",
            "port": self.port,
            "transport": self.transport_cls,
            "uri": self.as_uri(),
        }

    def connect(self) -> Connection:
        """Ask the database something.

        Raises:
            kombu.exceptions.OperationalError: It does not answer.
        """
        return self.ensure_connection(max_retries=1)

    def ensure_connection(
        self,
        errback: Callable[[Exception, float], Any] | None = None,
        max_retries: int | None = None,
        interval_start: float = 2,
        interval_step: float = 2,
        interval_max: float = 30,
        callback: Any = None,
        **_: Any,
    ) -> Connection:
        """Ask the database something, once, whatever the retries asked for.

        Raises:
            kombu.exceptions.OperationalError: It does not answer.
        """
        try:
            self.app.engine.counts([])
        except EngineError as exc:
            if errback is not None:
                errback(exc, 0)
            raise OperationalError(str(exc)) from exc
        self._connected = True
        return self

    ensure = ensure_connection

    def channel(self) -> NoReturn:
        """Refuse: there is no AMQP here.

        Raises:
            ImproperlyConfigured: Always.
        """
        raise ImproperlyConfigured(
            "pgcelery's broker is a PostgreSQL database, which has no channels; "
            "app.control.inspect() and `pgcelery status` tell of queues and workers"
        )

    def Producer(self, *args: Any, **kwargs: Any) -> Producer:
        """Give a producer."""
        return Producer(self)

    def clone(self, **kwargs: Any) -> Connection:
        """Give another connection of the same app."""
        return type(self)(self.app)

    def release(self) -> None:
        """Forget that the database has answered."""
        self._connected = False

    close = _close = release

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()

    def __repr__(self) -> str:
        return f"<Connection: {self.as_uri()} at {id(self):#x}>"


class Producer:
    """What `producer_or_acquire` gives and ``apply_async(producer=...)`` takes."""

    def __init__(self, connection: Connection, *args: Any, **kwargs: Any) -> None:
        self.connection = connection

    def publish(self, body: Any, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: only tasks can be sent.

        Raises:
            ImproperlyConfigured: Always.
        """
        raise ImproperlyConfigured(
            "pgcelery sends tasks, not bare messages: use app.send_task(name, args, kwargs)"
        )

    def release(self) -> None:
        """Do nothing; nothing is held."""

    close = release

    def __enter__(self) -> Producer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class ConnectionPool:
    """Gives connections; there is no limit, for they hold nothing."""

    def __init__(self, app: Any) -> None:
        self.app = app

    @property
    def limit(self) -> int:
        """How many connections to the database the engine opens at once."""
        return int(self.app.engine_config.pool_size)

    def acquire(self, block: bool = False, timeout: float | None = None) -> Any:
        """Give one."""
        return Connection(self.app)

    def release(self, resource: Any) -> None:
        """Take one back."""
        resource.release()

    def force_close_all(self, *args: Any, **kwargs: Any) -> None:
        """Close the engine's connections; they open again when needed."""
        self.app.close_engine()


class ProducerPool(ConnectionPool):
    """Gives producers."""

    def acquire(self, block: bool = False, timeout: float | None = None) -> Producer:
        """Give one."""
        return Producer(Connection(self.app))

    @property
    def connections(self) -> ConnectionPool:
        """The pool that the producers' connections come from."""
        return ConnectionPool(self.app)
