from pgcelery.compat.worker.consumer import *  # noqa: F403
