from pgcelery.compat.events import *  # noqa: F403
