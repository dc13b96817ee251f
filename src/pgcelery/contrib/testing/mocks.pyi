from pgcelery.compat.contrib.testing.mocks import *  # noqa: F403
