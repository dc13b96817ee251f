from pgcelery.compat.exceptions import *  # noqa: F403
