from pgcelery.compat.backends import *  # noqa: F403
