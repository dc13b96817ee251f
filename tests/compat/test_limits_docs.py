"""docs/limits.md: its examples run, and what it says is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pgcelery import Concurrency
from tests.support.tasks import Offline

PAGE = (Path(__file__).parents[2] / "docs" / "limits.md").read_text()


def test_the_examples_run() -> None:
    app = Offline("shop")
    names: dict[str, Any] = {"app": app, "__name__": "shop"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    for block in blocks:
        exec(block, names)
    assert len(blocks) == 9
    jobs = app.engine.jobs
    assert [[(gate.name, gate.key) for gate in job.gates] for job in jobs] == [
        [("shop.fulfil", "tenant:7")],
        [("shop.fulfil", "vip")],
        [("shop.fulfil", "tenant:7")],
        [("shop.ship", "dock 3")],
        [("shop.render", "1")],
        [("shop.charge", "7"), ("stripe", "test account"), ("stripe:rate", "")],
        [("shop.call_api:rate", "trial")],
        [],
        [],
        [],
        [],
        [("shop.fulfil", "tenant:7")],
        [],
    ]
    assert jobs[4].gates[0].slots == 3
    assert jobs[6].gates[0].units == 2
    first, again, off, by_hand, order = (job.unique for job in jobs[7:12])
    assert first == again
    assert off is None
    assert (by_hand.key, order.key) == ("shop.rebuild=blog by hand", "shop.fulfil=order 15")
    assert jobs[12].placement == '{"r":{"gpu":"2"}}'
    app.send_task("shop.tasks.any", kwargs={"tenant": 7})
    app.send_task("shop.tasks.any")
    app.send_task("shop.mail.x")
    app.send_task("shop.tasks.cleanup")
    assert [[gate.key for gate in job.gates] for job in jobs[13:]] == [["7"], ["none"], [""], []]


def test_the_error_it_shows_is_raised() -> None:
    shown = re.search(r"```text\nValueError: (.*?)```", PAGE, re.DOTALL)
    assert shown
    app = Offline("shop")
    rule = Concurrency("tenant:{ordr.tenant}")
    with pytest.raises(ValueError, match="ordr") as caught:
        app.task(lambda order: None, name="shop.fulfil", concurrency=rule)
    assert str(caught.value).split() == shown[1].split()
