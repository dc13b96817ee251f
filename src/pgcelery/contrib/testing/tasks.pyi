from pgcelery.compat.contrib.testing.tasks import *  # noqa: F403
