from pgcelery.compat.contrib.abortable import *  # noqa: F403
