from pgcelery.compat.states import *  # noqa: F403
