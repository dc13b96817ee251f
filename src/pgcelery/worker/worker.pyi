from pgcelery.compat.worker.worker import *  # noqa: F403
