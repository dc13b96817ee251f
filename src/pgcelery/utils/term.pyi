from pgcelery.compat.utils.term import *  # noqa: F403
