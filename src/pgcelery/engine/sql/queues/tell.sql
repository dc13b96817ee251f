-- Wake the workers of queues. In a transaction of its own that waits for no disk: a notifying
-- commit holds a lock of the whole server until it is flushed.
select set_config('synchronous_commit', 'off', true), pg_notify(%(channel)s, %(payload)s);
