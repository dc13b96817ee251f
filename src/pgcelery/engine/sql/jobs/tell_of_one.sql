-- Wake workers, unless one was handed this job, by the statement before. Waits for no disk: a notifying
-- commit holds a lock of the whole server until then.
select set_config('synchronous_commit', 'off', true), pg_notify(%s, %s)
where current_setting('pgcelery_claims.handed', true) is distinct from %s
