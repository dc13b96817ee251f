from pgcelery.compat.utils.threads import *  # noqa: F403
