from pgcelery.compat.utils.log import *  # noqa: F403
