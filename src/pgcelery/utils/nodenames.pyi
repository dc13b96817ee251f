from pgcelery.compat.utils.nodenames import *  # noqa: F403
