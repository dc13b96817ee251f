from pgcelery.compat.loaders.base import *  # noqa: F403
