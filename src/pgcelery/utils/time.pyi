from pgcelery.compat.utils.time import *  # noqa: F403
