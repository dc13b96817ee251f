from pgcelery.compat.contrib.testing.manager import *  # noqa: F403
