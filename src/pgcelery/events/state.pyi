from pgcelery.compat.events.state import *  # noqa: F403
