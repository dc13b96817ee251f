"""A pytest plugin for the suite: keeps the demanded tests and writes down each report.

Runs in the suite's own environment, where nothing of this repository but ``src`` and this folder
can be imported.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import celery
import pytest

FOLDER = "t/integration/"


def pytest_addoption(parser):
    parser.addoption("--suite-keys", type=Path, help="JSON list of the keys to run")
    parser.addoption("--suite-records", type=Path, help="where the reports go, one a line")


def pytest_configure(config):
    if not celery.Celery.__module__.startswith("pgcelery."):
        raise pytest.UsageError(f"celery is not pgcelery but {celery.__file__}")
    keys = frozenset(json.loads(config.getoption("--suite-keys").read_text()))
    config.pluginmanager.register(Recorder(keys, config.getoption("--suite-records")))


class Recorder:
    def __init__(self, wanted: frozenset[str], records: Path) -> None:
        self.wanted = wanted
        self.records = records
        self.keys: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config, items):
        numbers: Counter[str] = Counter()
        for item in items:
            function = item.nodeid.partition("[")[0].removeprefix(FOLDER)
            self.keys[item.nodeid] = f"{function}#{numbers[function]}"
            numbers[function] += 1
        others = [item for item in items if self.keys[item.nodeid] not in self.wanted]
        items[:] = [item for item in items if self.keys[item.nodeid] in self.wanted]
        config.hook.pytest_deselected(items=others)

    def pytest_runtest_logreport(self, report):
        record = {
            "key": self.keys[report.nodeid],
            "when": report.when,
            "outcome": report.outcome,
            "subtest": hasattr(report, "context"),
            "seconds": report.duration,
            "details": "" if report.passed else report.longreprtext,
        }
        with self.records.open("a") as file:
            file.write(json.dumps(record) + "\n")
