from pgcelery.compat.signals import *  # noqa: F403
