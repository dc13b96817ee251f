-- Ask to be told on a channel when these end. Read the results after this has committed.
insert into pgcelery.waiters (job_id, channel, until)
select u.id, %(channel)s, now() + make_interval(secs => %(keep_s)s)
from unnest(%(ids)s::text[]) as u(id)
order by u.id
on conflict (job_id, channel) do nothing;
