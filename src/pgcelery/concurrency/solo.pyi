from pgcelery.compat.concurrency.solo import *  # noqa: F403
