from pgcelery.compat.app.builtins import *  # noqa: F403
