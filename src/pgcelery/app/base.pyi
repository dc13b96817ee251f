from pgcelery.compat.app.base import *  # noqa: F403
