from pgcelery.compat.app.registry import *  # noqa: F403
