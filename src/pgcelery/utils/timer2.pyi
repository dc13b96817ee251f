from pgcelery.compat.utils.timer2 import *  # noqa: F403
