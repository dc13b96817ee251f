"""All SQL of the engine; `pgcelery.engine.database.load` reads it."""

from __future__ import annotations
