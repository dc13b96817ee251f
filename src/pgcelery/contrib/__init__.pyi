from pgcelery.compat.contrib import *  # noqa: F403
