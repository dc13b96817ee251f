from pgcelery.compat.concurrency import *  # noqa: F403
