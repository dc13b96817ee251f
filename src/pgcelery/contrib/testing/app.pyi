from pgcelery.compat.contrib.testing.app import *  # noqa: F403
