from pgcelery.compat.utils.imports import *  # noqa: F403
