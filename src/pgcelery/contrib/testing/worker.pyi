from pgcelery.compat.contrib.testing.worker import *  # noqa: F403
