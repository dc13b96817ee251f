-- Enter what takes messages and no jobs; its lease starts now.
insert into pgcelery.workers (name, host, pid, queues, info, lease_until)
values (%(name)s, %(host)s, %(pid)s, '{}', %(info)s, now() + make_interval(secs => %(lease_s)s))
returning id;
