from pgcelery.compat.worker.control import *  # noqa: F403
