from pgcelery.compat.worker.autoscale import *  # noqa: F403
