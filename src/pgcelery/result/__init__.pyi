from pgcelery.compat.result import *  # noqa: F403
