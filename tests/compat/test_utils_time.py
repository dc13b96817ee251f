from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from pgcelery.compat.utils import time as ours

OSLO = ZoneInfo("Europe/Oslo")
HOUR = timedelta(hours=1)


@pytest.fixture
def theirs():
    return pytest.importorskip("celery.utils.time")


@pytest.mark.parametrize(
    ("text", "per_second"),
    [("10/s", 10.0), ("60/m", 1.0), ("7200/h", 2.0), ("0.5/s", 0.5), (3, 3), (None, 0), (0, 0)],
)
def test_rates_are_tasks_a_second(text, per_second):
    assert ours.rate(text) == per_second


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "now"),
        (1, "1.00 second"),
        (2.5, "2.50 seconds"),
        (60, "1.00 minute"),
        (5400, "1.50 hours"),
        (86400 * 4, "4.00 days"),
    ],
)
def test_seconds_are_told_in_words(seconds, text):
    assert ours.humanize_seconds(seconds) == text


def test_words_may_have_a_prefix_and_fractions():
    assert ours.humanize_seconds(20, prefix="in", sep=" ") == "in 20.00 seconds"
    assert ours.humanize_seconds(0.25, microseconds=True) == "0.25 seconds"


def test_names_of_days_and_months_are_numbers():
    assert [ours.weekday(name) for name in ("sunday", "Sun", "mon")] == [0, 0, 1]
    assert [ours.yearmonth(name) for name in ("January", "jan", "dec")] == [1, 1, 12]
    with pytest.raises(KeyError, match="moonday"):
        ours.weekday("moonday")


def test_backoff_doubles_up_to_the_maximum():
    waits = [ours.get_exponential_backoff_interval(2, retries, 50) for retries in range(6)]
    assert waits == [2, 4, 8, 16, 32, 50]
    jittered = {
        ours.get_exponential_backoff_interval(1, 1, 50, full_jitter=True) for _ in range(99)
    }
    assert jittered == {0, 1, 2}


def test_naive_times_are_utc_and_are_given_a_zone():
    naive = datetime(2024, 7, 1, 12)
    assert ours.is_naive(naive)
    assert ours.maybe_make_aware(naive) == datetime(2024, 7, 1, 12, tzinfo=UTC)
    assert ours.maybe_make_aware(naive, OSLO) == datetime(2024, 7, 1, 14, tzinfo=OSLO)
    assert ours.maybe_make_aware(naive, OSLO, naive_as_utc=False).hour == 12
    aware = datetime(2024, 7, 1, tzinfo=OSLO)
    assert ours.maybe_make_aware(aware, "UTC") is aware


def test_of_two_moments_that_look_alike_the_first_is_meant():
    twice = datetime(2024, 10, 27, 2, 30)
    assert ours.make_aware(twice, OSLO).utcoffset() == 2 * HOUR


def test_iso_8601_is_read():
    assert ours.maybe_iso8601("2024-07-01T12:00:00Z") == datetime(2024, 7, 1, 12, tzinfo=UTC)
    assert ours.maybe_iso8601("2024-07-01T12:00:00.5+02:00").microsecond == 500_000
    assert ours.maybe_iso8601(None) is None
    now = datetime.now(UTC)
    assert ours.maybe_iso8601(now) is now


def test_time_that_passes_is_not_what_the_clock_shows():
    before = datetime(2024, 3, 31, 1, 30, tzinfo=OSLO)
    after = ours.add_seconds_to_datetime(before, 3600)
    assert after == datetime(2024, 3, 31, 3, 30, tzinfo=OSLO)
    assert ours.subtract_datetimes(after, before) == HOUR
    assert ours.maybe_timedelta(90) == timedelta(seconds=90)
    assert ours.maybe_timedelta(HOUR) is HOUR


def test_a_step_on_the_calendar_sets_fields_and_adds_weeks():
    start = datetime(2024, 1, 31, 10)
    assert start + ours.ffwd(month=2) == datetime(2024, 2, 29, 10)
    assert start + ours.ffwd(weeks=1, hour=4) == datetime(2024, 2, 7, 4)
    assert (start + ours.ffwd(weekday=0)).weekday() == 0


def test_remaining_agrees_with_celery_around_every_change_of_the_clock(theirs):
    zones = [OSLO, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe"), UTC]
    days = [datetime(2024, 3, 31), datetime(2024, 10, 27), datetime(2024, 3, 10),
            datetime(2024, 11, 3), datetime(2024, 4, 7), datetime(2024, 10, 6)]  # fmt: skip
    steps = [
        timedelta(seconds=30),
        timedelta(minutes=7),
        HOUR,
        timedelta(hours=5),
        timedelta(days=1),
    ]
    for zone, day, step in itertools.product(zones, days, steps):
        for minutes in range(-60, 300, 47):
            start = (day + timedelta(minutes=minutes)).replace(tzinfo=UTC).astimezone(zone)
            now = start + timedelta(minutes=3)
            for relative in (False, True):
                expected = theirs.remaining(start, step, now, relative)
                assert ours.remaining(start, step, now, relative) == expected, (
                    start.isoformat(),
                    zone,
                    step,
                    relative,
                )


def test_rounding_agrees_with_celery(theirs):
    moment = datetime(2024, 5, 6, 7, 8, 9, 10, tzinfo=OSLO)
    for seconds in (0, 30, 60, 3599, 3600, 86399, 86400, 10**6):
        delta = timedelta(seconds=seconds)
        assert ours.delta_resolution(moment, delta) == theirs.delta_resolution(moment, delta)


def test_the_local_zone_is_the_machines(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Oslo")
    assert str(ours._find_local_zone()) == "Europe/Oslo"
    monkeypatch.setenv("TZ", "No/Such/Zone")
    assert isinstance(ours._find_local_zone(), ours.LocalTimezone)


def test_the_fallback_for_the_local_zone_is_the_c_librarys(monkeypatch):
    monkeypatch.setenv("TZ", "Europe/Oslo")
    time.tzset()
    try:
        zone = ours.LocalTimezone()
        for moment in (datetime(2024, 1, 1, 12), datetime(2024, 7, 1, 12)):
            assert (
                moment.replace(tzinfo=zone).utcoffset() == moment.replace(tzinfo=OSLO).utcoffset()
            )
            utc = moment.replace(tzinfo=UTC)
            assert utc.astimezone(zone).hour == utc.astimezone(OSLO).hour
            assert moment.replace(tzinfo=zone).tzname() == moment.replace(tzinfo=OSLO).tzname()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_zones_convert_as_celerys(theirs):
    naive = datetime(2024, 7, 1, 12)
    aware = datetime(2024, 7, 1, 12, tzinfo=timezone(5 * HOUR))
    for moment in (naive, naive.replace(tzinfo=UTC), aware):
        assert ours.timezone.to_local(moment, OSLO) == theirs.timezone.to_local(moment, OSLO)
        assert ours.localize(moment, OSLO) == theirs.localize(moment, OSLO)
