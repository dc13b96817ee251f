from pgcelery.compat.concurrency.prefork import *  # noqa: F403
