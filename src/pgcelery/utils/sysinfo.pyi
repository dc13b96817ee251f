from pgcelery.compat.utils.sysinfo import *  # noqa: F403
