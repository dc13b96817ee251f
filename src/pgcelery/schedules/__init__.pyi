from pgcelery.compat.schedules import *  # noqa: F403
