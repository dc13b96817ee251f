from pgcelery.compat.worker.pidbox import *  # noqa: F403
