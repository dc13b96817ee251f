from pgcelery.compat.utils.dispatch.signal import *  # noqa: F403
