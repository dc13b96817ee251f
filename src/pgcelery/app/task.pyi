from pgcelery.compat.app.task import *  # noqa: F403
