"""Fix-ups: what adapts an app to a framework."""

from __future__ import annotations
