from pgcelery.compat.utils.collections import *  # noqa: F403
