from pgcelery.compat.worker.request import *  # noqa: F403
