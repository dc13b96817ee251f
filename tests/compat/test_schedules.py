from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgcelery.compat import schedules
from pgcelery.compat.app.base import Celery
from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.schedules import (
    ParseException,
    crontab,
    crontab_parser,
    maybe_schedule,
    schedule,
    solar,
)

# Some that change their clocks by an hour, by half an hour, at midnight, and one that never does.
ZONES = [
    "UTC",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "America/Havana",
    "Pacific/Chatham",
    "Asia/Kolkata",
]


@pytest.fixture
def app() -> Iterator[Celery]:
    with Celery("schedules", broker="postgresql://nowhere/", set_as_current=False) as app:
        yield app


def at(*parts: int, zone: str = "UTC") -> datetime:
    return datetime(*parts, tzinfo=ZoneInfo(zone))  # type: ignore[arg-type, misc]


def cron(app: Celery, *fields: Any, now: datetime, **named: Any) -> crontab:
    return crontab(*fields, nowfun=lambda: now, app=app, **named)


# What a field may say.


@pytest.mark.parametrize(
    ("size", "first", "text", "values"),
    [
        (60, 0, "*", set(range(60))),
        (60, 0, "*/15", {0, 15, 30, 45}),
        (60, 0, "1,5,10-20/5", {1, 5, 10, 15, 20}),
        (60, 0, "50-10/20", {50, 10}),
        (7, 0, "mon-fri", {1, 2, 3, 4, 5}),
        (7, 0, "fri-mon", {5, 6, 0, 1}),
        (7, 0, "Sunday", {0}),
        (12, 1, "jan,nov-feb", {1, 2, 11, 12}),
        (31, 1, "*/10", {1, 11, 21, 31}),
    ],
)
def test_a_field_is_read_as_documented(size: int, first: int, text: str, values: set[int]) -> None:
    assert crontab_parser(size, first).parse(text) == values


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", ParseException, "empty part"),
        ("1,,2", ParseException, "empty part"),
        ("*/", ParseException, "empty filter"),
        ("1-3/", ParseException, "empty filter"),
        ("-1", ParseException, "negative numbers"),
        ("60", ValueError, "60 > 59"),
        ("noon", ValueError, "'noon'"),
        ("*5", ValueError, "Invalid weekday literal"),
    ],
)
def test_a_field_that_cannot_be_read_is_refused(
    text: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        crontab_parser(60).parse(text)


def test_impossible_crontabs_are_refused() -> None:
    with pytest.raises(ValueError, match="'7' was found"):
        crontab(day_of_week=7)
    with pytest.raises(ValueError, match="30 never occurs in month_of_year 2"):
        crontab(day_of_month=30, month_of_year=2)
    with pytest.raises(TypeError, match="NoneType"):
        crontab(minute=None)  # type: ignore[arg-type]


def test_a_text_is_read_in_the_order_of_cron() -> None:
    assert crontab.from_string("5 4 3 2 1") == crontab(5, 4, 1, 3, 2)
    assert repr(crontab.from_string("5 4 3 2 1")) == "<crontab: 5 4 3 2 1 (m/h/dM/MY/d)>"


# When they are due.


def test_a_day_must_match_the_month_and_the_week(app: Celery) -> None:
    friday_13th = cron(app, 0, 0, "fri", 13, now=at(2026, 1, 1))
    assert friday_13th.remaining_estimate(at(2026, 1, 1)) == at(2026, 2, 13) - at(2026, 1, 1)


def test_a_leap_day_on_a_sunday_is_found_forty_years_later(app: Celery) -> None:
    now = at(2089, 1, 1)
    sunday_29th = cron(app, 0, 0, "sun", 29, 2, now=now)
    assert sunday_29th.remaining_estimate(now) == at(2128, 2, 29) - now


def test_missed_runs_are_one(app: Celery) -> None:
    now = at(2026, 3, 2, 12, 30)
    assert cron(app, 0, now=now).is_due(at(2026, 3, 2, 4, 0)) == (True, 1800)
    app.conf.beat_cron_starting_deadline = 1800
    assert cron(app, 0, now=now).is_due(at(2026, 3, 2, 4, 0)) == (True, 1800)
    app.conf.beat_cron_starting_deadline = 1799
    assert cron(app, 0, now=now).is_due(at(2026, 3, 2, 4, 0)) == (False, 1800)


def test_an_interval_is_time_that_passes_and_a_relative_one_is_the_wall_clock(app: Celery) -> None:
    zone = "Europe/Berlin"  # puts the clock forward on the 29th at 2:00
    app.conf.timezone = zone
    last = at(2026, 3, 28, 12, 30, zone=zone)
    now = at(2026, 3, 28, 12, 30, zone=zone)
    day = timedelta(days=1)
    real = schedule(day, nowfun=lambda: now, app=app)
    assert real.is_due(last) == (False, 86400)
    wall = schedule(day, relative=True, nowfun=lambda: now, app=app)
    assert wall.remaining_estimate(last) == timedelta(hours=11.5)
    assert wall.remaining_estimate(at(2026, 3, 29, 1, zone=zone)) == timedelta(hours=34.5)


def test_naive_times_are_utc(app: Celery) -> None:
    app.conf.timezone = "Asia/Kolkata"
    entry = crontab(0, 12, nowfun=lambda: datetime(2026, 1, 1, 6, 0), app=app)
    assert entry.is_due(datetime(2026, 1, 1, 6, 0)) == (False, 1800)


def test_numbers_and_timedeltas_become_schedules(app: Celery) -> None:
    assert maybe_schedule(30, app=app) == timedelta(seconds=30)
    assert repr(maybe_schedule(timedelta(hours=2))) == "<freq: 2.00 hours>"
    assert maybe_schedule(None) is None
    given = crontab()
    assert maybe_schedule(given, app=app).app is app


def test_schedules_can_be_pickled_and_compared() -> None:
    for one in (crontab("*/5", [1, 2], "mon"), schedule(5.5, relative=True)):
        again = pickle.loads(pickle.dumps(one))
        assert again == one
        assert type(again) is type(one)
    assert crontab(1) != crontab(2)
    assert crontab(1) != crontab(1, nowfun=datetime.now)
    assert schedule(5) == 5 * timedelta(seconds=1)


# The sun.


def test_without_ephem_the_sun_is_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ephem", None)
    with pytest.raises(ImproperlyConfigured, match="pip install ephem"):
        solar("sunrise", 0, 0)


def test_the_sun_rises_where_and_when_it_does(app: Celery) -> None:
    pytest.importorskip("ephem")
    noon = at(2026, 6, 21, 12)
    sunset = solar("sunset", 52.5, 13.4, nowfun=lambda: noon, app=app)
    left = sunset.is_due(noon)
    assert not left.is_due
    assert timedelta(hours=7) < timedelta(seconds=left.next) < timedelta(hours=8)
    assert pickle.loads(pickle.dumps(sunset)) == sunset
    polar = solar("sunset", 80, 0, nowfun=lambda: noon, app=app)
    assert timedelta(days=30) < timedelta(seconds=polar.is_due(noon).next) < timedelta(days=120)
    with pytest.raises(ValueError, match='"midnight" is invalid'):
        solar("midnight", 0, 0)
    with pytest.raises(ValueError, match="latitude 91"):
        solar("sunset", 91, 0)


# The same as Celery, whatever is asked.


@pytest.fixture(scope="module")
def theirs() -> Any:
    """Celery's own module."""
    module = pytest.importorskip("celery.schedules")
    assert module is not schedules, "celery is pgcelery in this process"
    return module


def field(first: int, last: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[Any]:
    number = st.integers(first, last)
    value = st.one_of(number.map(str), st.sampled_from(names)) if names else number.map(str)
    spread = st.builds("{}-{}".format, value, value)
    every = st.integers(1, last)
    stepped = st.builds("{}/{}".format, st.one_of(st.just("*"), spread), every)
    text = st.lists(st.one_of(value, spread, stepped), min_size=1, max_size=3).map(",".join)
    numbers = st.lists(number, min_size=1, max_size=4)
    return st.one_of(st.just("*"), st.just("*"), text, number, numbers)


FIELDS = st.tuples(
    field(0, 59),
    field(0, 23),
    field(0, 6, ("mon", "fri", "Sunday")),
    field(1, 31),
    field(1, 12, ("jan", "nov")),
)
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 12, 31), timezones=st.just(UTC))
# Where clocks are changed, which random moments seldom hit.
CHANGES = st.builds(
    lambda day, minutes: day + timedelta(minutes=minutes),
    st.sampled_from(
        [
            at(2026, 3, 8, 7),
            at(2026, 11, 1, 6),
            at(2026, 3, 29, 1),
            at(2026, 10, 25, 1),
            at(2026, 4, 4, 15),
            at(2026, 10, 3, 15, 30),
            at(2026, 4, 23, 22),
            at(2026, 10, 29, 21),
        ]
    ),
    st.integers(-3000, 3000),
)
PAUSES = st.one_of(
    st.timedeltas(timedelta(0), timedelta(hours=3)), st.timedeltas(timedelta(0), timedelta(days=90))
)


class Twins:
    """The same schedule of both libraries, in apps with the same settings."""

    def __init__(self, theirs: Any) -> None:
        self._theirs = theirs
        self._apps: dict[Any, tuple[Any, Any]] = {}

    def answers(
        self, make: Callable[[Any, Any], Any], last: datetime, zone: str, deadline_s: int | None
    ) -> list[Any]:
        """What both say; an error is its name and text."""
        if (zone, deadline_s) not in self._apps:
            ours = Celery("ours", broker="postgresql://nowhere/", set_as_current=False)
            pair = ours, self._theirs.Celery("theirs", set_as_current=False)
            for app in pair:
                app.conf.timezone = zone
                app.conf.beat_cron_starting_deadline = deadline_s
            self._apps[zone, deadline_s] = pair
        modules = schedules, self._theirs
        said = []
        for module, app in zip(modules, self._apps[zone, deadline_s], strict=True):
            try:
                made = make(module, app)
                said.append((tuple(made.is_due(last)), made.remaining_estimate(last)))
            except (ValueError, module.ParseException) as exc:
                said.append((type(exc).__name__, str(exc)))
        return said


@pytest.fixture(scope="module")
def twins(theirs: Any) -> Twins:
    return Twins(theirs)


checked = settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@checked
@given(
    fields=FIELDS,
    zone=st.sampled_from(ZONES),
    last_zone=st.sampled_from(ZONES),
    last=st.one_of(MOMENTS, CHANGES),
    pause=PAUSES,
    deadline_s=st.sampled_from([None, None, 0, 600, 86400]),
)
def test_any_crontab_is_due_when_celery_says(
    twins: Twins,
    fields: Any,
    zone: str,
    last_zone: str,
    last: datetime,
    pause: timedelta,
    deadline_s: int | None,
) -> None:
    last = last.astimezone(ZoneInfo(last_zone))
    now = (last + pause).astimezone(ZoneInfo(zone))
    ours, expected = twins.answers(
        lambda module, app: module.crontab(*fields, nowfun=lambda: now, app=app),
        last,
        zone,
        deadline_s,
    )
    assert ours == expected


@checked
@given(
    seconds=st.one_of(st.integers(0, 200000), st.sampled_from([60, 3600, 7200, 86400, 604800])),
    relative=st.booleans(),
    zone=st.sampled_from(ZONES),
    last=st.one_of(MOMENTS, CHANGES),
    pause=PAUSES,
)
def test_any_interval_is_due_when_celery_says(
    twins: Twins,
    seconds: int,
    relative: bool,
    zone: str,
    last: datetime,
    pause: timedelta,
) -> None:
    last = last.astimezone(ZoneInfo(zone))
    now = (last + pause).astimezone(ZoneInfo(zone))
    ours, expected = twins.answers(
        lambda module, app: module.schedule(seconds, relative, lambda: now, app), last, zone, None
    )
    assert ours == expected


@settings(max_examples=500, deadline=None)
@given(text=st.text("0159*/-,amnorjfi ", max_size=8), size=st.sampled_from([(60, 0), (12, 1)]))
def test_any_text_of_a_field_is_read_or_refused_as_celery_does(
    theirs: Any, text: str, size: tuple[int, int]
) -> None:
    def read(module: Any) -> Any:
        try:
            return module.crontab_parser(*size).parse(text)
        except (ValueError, module.ParseException) as exc:
            return type(exc).__name__, str(exc)

    assert read(schedules) == read(theirs)


def test_importing_schedules_needs_neither_ephem_nor_a_database() -> None:
    program = (
        "import sys; sys.modules['ephem'] = None; from pgcelery.schedules import crontab, solar"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
