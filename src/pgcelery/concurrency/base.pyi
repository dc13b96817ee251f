from pgcelery.compat.concurrency.base import *  # noqa: F403
