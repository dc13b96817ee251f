from pgcelery.compat.app import *  # noqa: F403
