"""What the engine raises.

::

    EngineError
    ├── DatabaseUnavailable   no connection, or it broke; trying again can help
    ├── SchemaMismatch        the database's schema is older, or newer and breaking
    ├── NotPermitted          the role lacks a privilege; nothing was done
    ├── InvalidJob            a job that the database could not hold; nothing was written
    ├── NotCurrent            a run has lost its job; nothing of it was recorded
    ├── NotEnded              a job that is to run again has not ended; nothing was done
    ├── UnknownQueue          no queue of that name; nothing was done
    ├── WrongDatabase         a connection of the sender's to another database; nothing was done
    ├── EmbeddedServerError   the embedded PostgreSQL could not be started
    └── PoolTimeout           no free connection in time; trying again can help
"""

from __future__ import annotations


class EngineError(Exception):
    """Any error of the engine."""


class DatabaseUnavailable(EngineError):
    """The database cannot be reached, or the connection broke. Trying again can help."""


class SchemaMismatch(EngineError):
    """The schema in the database does not fit this release; the message says what to do."""


class NotPermitted(EngineError):
    """The database role may not do that (`roles`). Nothing was done."""


class InvalidJob(EngineError, ValueError):
    """A job that the database could not hold: too long, or text with NUL. Nothing was written."""


class NotCurrent(EngineError):
    """A run's token is not current any more. What it did in its transaction is not there."""


class NotEnded(EngineError):
    """A job that is to run again, or that such a one needs, has not ended. Nothing was done."""


class UnknownQueue(EngineError, LookupError):
    """There is no queue of that name. Nothing was done."""


class WrongDatabase(EngineError, ValueError):
    """A connection to send on is connected to another database. Nothing was done."""


class EmbeddedServerError(EngineError):
    """The embedded PostgreSQL could not be installed, started or found."""


class PoolTimeout(DatabaseUnavailable):
    """Every connection was in use for the whole of the time allowed."""
