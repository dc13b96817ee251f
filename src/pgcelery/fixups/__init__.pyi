from pgcelery.compat.fixups import *  # noqa: F403
