-- Enter a worker; its lease starts now. The id is never reused.
insert into pgcelery.workers (name, host, pid, queues, info, lease_until)
values ($1, $2, $3, $4, $5, now() + make_interval(secs => $6))
returning id
