from pgcelery.compat.workflow import *  # noqa: F403
