from pgcelery.compat.utils.deprecated import *  # noqa: F403
