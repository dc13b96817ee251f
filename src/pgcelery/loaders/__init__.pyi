from pgcelery.compat.loaders import *  # noqa: F403
