from pgcelery.compat.utils.dispatch import *  # noqa: F403
