from pgcelery.compat.worker.components import *  # noqa: F403
