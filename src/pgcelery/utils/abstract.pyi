from pgcelery.compat.utils.abstract import *  # noqa: F403
