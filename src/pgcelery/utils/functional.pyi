from pgcelery.compat.utils.functional import *  # noqa: F403
