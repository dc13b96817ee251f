from pgcelery.compat.local import *  # noqa: F403
