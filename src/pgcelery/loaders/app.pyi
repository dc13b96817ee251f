from pgcelery.compat.loaders.app import *  # noqa: F403
