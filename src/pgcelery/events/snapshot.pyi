from pgcelery.compat.events.snapshot import *  # noqa: F403
