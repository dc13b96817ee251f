from pgcelery.compat.contrib.testing import *  # noqa: F403
