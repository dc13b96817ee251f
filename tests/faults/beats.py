"""The application of the beats under fault. Each task is sent with the slot that it is for."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path

from pgcelery import Celery
from pgcelery.beat import BeatLazyFunc
from pgcelery.schedules import crontab, schedule

app = Celery("beats", broker=os.environ["FAULTS_DSN"])
CLOCK = os.environ.get("FAULTS_CLOCK")


def now() -> datetime:
    return datetime.fromisoformat(Path(CLOCK or "").read_text())


def slot() -> str:
    return now().isoformat() if CLOCK else str(int(time.time()))


if CLOCK:
    app.conf.beat_max_loop_interval = 0.01
    schedules = {
        "minutely": crontab(nowfun=now),
        "quarterly": crontab("*/15", nowfun=now),
        "sevenly": schedule(7 * 60, nowfun=now),
    }
else:
    schedules = {"secondly": schedule(1, relative=True)}

app.conf.beat_schedule = {
    name: {"task": name, "schedule": one, "args": (BeatLazyFunc(slot),)}
    for name, one in schedules.items()
}
