"""Imported by every interpreter of the suite when it starts: celery is pgcelery."""

from __future__ import annotations

import pgcelery

pgcelery.install_as_celery()
