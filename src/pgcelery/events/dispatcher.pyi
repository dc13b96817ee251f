from pgcelery.compat.events.dispatcher import *  # noqa: F403
