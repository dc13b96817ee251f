from pgcelery.compat.worker.strategy import *  # noqa: F403
