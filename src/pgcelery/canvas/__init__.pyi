from pgcelery.compat.canvas import *  # noqa: F403
