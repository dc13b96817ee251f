from pgcelery.compat.loaders.default import *  # noqa: F403
