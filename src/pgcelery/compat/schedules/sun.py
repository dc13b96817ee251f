"""`solar`: runs when the sun does something. Needs the ``ephem`` library.

Source: Celery 5.7, ``celery.schedules.solar``.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from importlib import import_module
from typing import Any, NamedTuple

from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.schedules.intervals import BaseSchedule, schedstate
from pgcelery.compat.utils.time import localize, subtract_datetimes, timezone

__all__ = ("solar",)


class _Event(NamedTuple):
    horizon: str  #: degrees at which the sun is said to rise or set
    method: str  #: of ephem's observer
    centre: bool = False  #: whether it is the centre of the sun that counts


_EVENTS = {
    "dawn_astronomical": _Event("-18", "next_rising", True),
    "dawn_nautical": _Event("-12", "next_rising", True),
    "dawn_civil": _Event("-6", "next_rising", True),
    "sunrise": _Event("-0:34", "next_rising"),
    "solar_noon": _Event("0", "next_transit"),
    "sunset": _Event("-0:34", "next_setting"),
    "dusk_civil": _Event("-6", "next_setting", True),
    "dusk_nautical": _Event("-12", "next_setting", True),
    "dusk_astronomical": _Event("-18", "next_setting", True),
}


class solar(BaseSchedule):
    """Runs at an event of the sun, as seen from a place.

    Args:
        event: ``sunrise``, ``sunset``, ``solar_noon``, or ``dawn_`` or ``dusk_`` and
            ``astronomical``, ``nautical`` or ``civil``.
        lat: Degrees north.
        lon: Degrees east.
        kwargs: `nowfun` and `app` of `BaseSchedule`.

    Raises:
        ImproperlyConfigured: There is no ephem.
        ValueError: An event or a place that does not exist.
    """

    #: days without the event after which the search ends: once around the sun
    max_search_days = 366

    def __init__(self, event: str, lat: float, lon: float, **kwargs: Any) -> None:
        try:
            self.ephem: Any = import_module("ephem")
        except ImportError as exc:
            raise ImproperlyConfigured(
                "Solar schedules need the ephem library: pip install ephem"
            ) from exc
        self.event = event
        self.lat = lat
        self.lon = lon
        super().__init__(**kwargs)
        if event not in _EVENTS:
            raise ValueError(
                f'Argument event "{event}" is invalid, must be one of {", ".join(sorted(_EVENTS))}.'
            )
        if not -90 <= lat <= 90:
            raise ValueError(f"Argument latitude {lat} is invalid, must be between -90 and 90.")
        if not -180 <= lon <= 180:
            raise ValueError(f"Argument longitude {lon} is invalid, must be between -180 and 180.")
        self.cal = self.ephem.Observer()
        self.cal.lat, self.cal.lon = str(lat), str(lon)
        self.cal.elev = self.cal.pressure = 0
        self.cal.horizon, self.method, self.use_center = _EVENTS[event]

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Give the time from now until the event after `last_run_at`; negative when it is past.

        Where it does not happen for a year, that is when to look again.
        """
        last_run_at = self.maybe_make_aware(last_run_at)
        start = localize(last_run_at, timezone.utc)
        self.cal.date = start
        found = self._next_event(self.ephem.Date(start))
        return subtract_datetimes(
            self.maybe_make_aware(found.datetime()), self.maybe_make_aware(self.now())
        )

    def _next_event(self, start: Any) -> Any:
        sun = self.ephem.Sun()
        options = {"use_center": True} if self.use_center else {}
        for _ in range(self.max_search_days):
            try:
                return getattr(self.cal, self.method)(sun, start=start, **options)
            except self.ephem.CircumpolarError:
                # Near the poles the sun does not rise, or does not set, on some days.
                start = self.cal.next_antitransit(sun, start=start)
        return start

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Say whether to run now, given when it ran last, and when to ask again."""
        left = self._seconds_left(last_run_at)
        return schedstate(left == 0, left or self._seconds_left(self.now()))

    def __repr__(self) -> str:
        return f"<solar: {self.event} at latitude {self.lat}, longitude: {self.lon}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.event, self.lat, self.lon)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, solar):
            return NotImplemented
        return (other.event, other.lat, other.lon) == (self.event, self.lat, self.lon)
