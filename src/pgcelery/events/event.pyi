from pgcelery.compat.events.event import *  # noqa: F403
