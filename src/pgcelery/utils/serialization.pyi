from pgcelery.compat.utils.serialization import *  # noqa: F403
