"""Celery's own integration tests, run against pgcelery under the name of celery.

`python -m tests.celery_compat.suite` downloads Celery's source distribution, takes its ``t/``, and
runs the tests that `demanded.json` names on an embedded PostgreSQL. Each shard (a file's tests, or
some of them) has a pytest process, a database and a Redis of its own; Redis is where the suite's
tasks note that they were called, neither broker nor backend. No test is run twice.
"""
