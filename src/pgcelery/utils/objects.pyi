from pgcelery.compat.utils.objects import *  # noqa: F403
