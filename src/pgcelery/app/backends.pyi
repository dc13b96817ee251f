from pgcelery.compat.app.backends import *  # noqa: F403
