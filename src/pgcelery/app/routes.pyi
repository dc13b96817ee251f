from pgcelery.compat.app.routes import *  # noqa: F403
