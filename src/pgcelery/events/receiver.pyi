from pgcelery.compat.events.receiver import *  # noqa: F403
