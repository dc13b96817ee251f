from pgcelery.compat.contrib.django.task import *  # noqa: F403
