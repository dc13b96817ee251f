from pgcelery.compat.registry import *  # noqa: F403
