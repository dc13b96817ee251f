-- Wake others. Waits for no disk: a notifying commit holds a lock of the whole server until then.
select set_config('synchronous_commit', 'off', true), pg_notify($1, $2)
