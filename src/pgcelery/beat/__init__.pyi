from pgcelery.compat.beat import *  # noqa: F403
