from pgcelery.compat.worker.state import *  # noqa: F403
