from pgcelery.compat.events.dumper import *  # noqa: F403
