from __future__ import annotations


class SuiteError(Exception):
    """The suite could not be run; says nothing about pgcelery."""
