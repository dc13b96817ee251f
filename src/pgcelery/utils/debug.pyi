from pgcelery.compat.utils.debug import *  # noqa: F403
