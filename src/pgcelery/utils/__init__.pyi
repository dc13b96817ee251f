from pgcelery.compat.utils import *  # noqa: F403
