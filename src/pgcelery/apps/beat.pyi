from pgcelery.compat.apps.beat import *  # noqa: F403
