-- Renew the lease; no row when it ran out and was cleared away.
update pgcelery.workers
set beat_at = clock_timestamp(), lease_until = clock_timestamp() + make_interval(secs => %(lease_s)s)
where id = %(id)s
returning id;
