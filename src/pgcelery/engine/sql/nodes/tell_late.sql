-- Tell those who asked for a result while it was being committed, once it is: neither has seen the other.
with gone as (delete from pgcelery.waiters w where w.job_id = $1 returning w.channel)
select set_config('synchronous_commit', 'off', true), pg_notify(g.channel, json_build_array($1::text)::text)
from gone g
