from pgcelery.compat.utils.text import *  # noqa: F403
