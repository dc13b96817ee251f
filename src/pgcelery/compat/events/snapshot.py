"""Cameras: programs that look at the state of the cluster every now and then.

Source: Celery 5.7, ``celery.events.snapshot``.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

from kombu.utils.limits import TokenBucket

from pgcelery.compat import platforms
from pgcelery.compat._state import app_or_default
from pgcelery.compat.utils.dispatch import Signal
from pgcelery.compat.utils.imports import instantiate
from pgcelery.compat.utils.time import rate
from pgcelery.compat.utils.timer2 import Timer

__all__ = ("Polaroid", "evcam")

logger = logging.getLogger("celery.evcam")


class Polaroid:
    """A camera. Subclasses say in `on_shutter` what to do with what is seen.

    Args:
        state: The `State` to look at.
        freq: Seconds between two looks.
        maxrate: As ``10/m``; looks beyond it are left out.
        cleanup_freq: Seconds between two calls of `on_cleanup`.
        timer: Calls functions later; default one of its own.
        app: The app.

    Attributes:
        clear_after: Whether the state is cleared after each look.
    """

    timer: Any = None
    shutter_signal = Signal(name="shutter_signal", providing_args={"state"})
    cleanup_signal = Signal(name="cleanup_signal")
    clear_after = False

    _tref: Any = None
    _ctref: Any = None

    def __init__(
        self,
        state: Any,
        freq: float = 1.0,
        maxrate: Any = None,
        cleanup_freq: float = 3600.0,
        timer: Any = None,
        app: Any = None,
    ) -> None:
        self.app = app_or_default(app)
        self.state = state
        self.freq = freq
        self.cleanup_freq = cleanup_freq
        self.timer = timer or self.timer or Timer()
        self.logger = logger
        self.maxrate = TokenBucket(rate(maxrate)) if maxrate else None

    def install(self) -> None:
        """Begin."""
        self._tref = self.timer.call_repeatedly(self.freq, self.capture)
        self._ctref = self.timer.call_repeatedly(self.cleanup_freq, self.cleanup)

    def on_shutter(self, state: Any) -> None:
        """Look at the state; nothing is taken in meanwhile."""

    def on_cleanup(self) -> None:
        """Delete what is old."""

    def cleanup(self) -> None:
        """Clean up, and tell the receivers of `cleanup_signal`."""
        logger.debug("Cleanup: Running...")
        self.cleanup_signal.send(sender=self.state)
        self.on_cleanup()

    def shutter(self) -> None:
        """Look, unless that was done too often, and tell the receivers of `shutter_signal`."""
        if self.maxrate is None or self.maxrate.can_consume():
            logger.debug("Shutter: %s", self.state)
            self.shutter_signal.send(sender=self.state)
            self.on_shutter(self.state)

    def capture(self) -> None:
        """Look, while the state stands still."""
        self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def cancel(self) -> None:
        """Look once more, and end."""
        if self._tref:
            self._tref()
            self._tref.cancel()
        if self._ctref:
            self._ctref.cancel()

    def __enter__(self) -> Polaroid:
        self.install()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.cancel()


def evcam(
    camera: Any,
    freq: float = 1.0,
    maxrate: Any = None,
    loglevel: Any = 0,
    logfile: str | None = None,
    pidfile: str | None = None,
    timer: Any = None,
    app: Any = None,
    **kwargs: Any,
) -> None:
    """Run a camera, a class or its name, until interrupted."""
    app = app_or_default(app)
    if pidfile:
        platforms.create_pidlock(pidfile)
    app.log.setup_logging_subsystem(loglevel, logfile)
    sys.stdout.write(f"-> evcam: Taking snapshots with {camera} (every {freq} secs.)\n")
    state = app.events.State()
    cam = instantiate(camera, state, app=app, freq=freq, maxrate=maxrate, timer=timer)
    cam.install()
    receiver = app.events.Receiver(app.connection_for_read(), handlers={"*": state.event})
    try:
        receiver.capture(limit=None)
    except KeyboardInterrupt:
        raise SystemExit from None
    finally:
        cam.cancel()
