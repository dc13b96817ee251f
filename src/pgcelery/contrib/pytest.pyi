from pgcelery.compat.contrib.pytest import *  # noqa: F403
