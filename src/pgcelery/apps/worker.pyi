from pgcelery.compat.apps.worker import *  # noqa: F403
