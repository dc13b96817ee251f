from pgcelery.compat.utils.graph import *  # noqa: F403
