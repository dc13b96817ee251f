from pgcelery.compat.worker.heartbeat import *  # noqa: F403
