from pgcelery.compat.apps import *  # noqa: F403
