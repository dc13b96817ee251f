from pgcelery.compat.backends.base import *  # noqa: F403
