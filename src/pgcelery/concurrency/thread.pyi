from pgcelery.compat.concurrency.thread import *  # noqa: F403
