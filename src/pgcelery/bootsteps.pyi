from pgcelery.compat.bootsteps import *  # noqa: F403
