from pgcelery.compat.app.trace import *  # noqa: F403
