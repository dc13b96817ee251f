from pgcelery.compat.fixups.django import *  # noqa: F403
