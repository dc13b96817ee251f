from pgcelery.compat.worker import *  # noqa: F403
