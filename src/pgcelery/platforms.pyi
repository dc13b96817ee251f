from pgcelery.compat.platforms import *  # noqa: F403
