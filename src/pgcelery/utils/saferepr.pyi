from pgcelery.compat.utils.saferepr import *  # noqa: F403
