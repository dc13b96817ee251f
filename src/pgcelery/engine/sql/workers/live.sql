-- Workers whose lease holds, oldest first.
select w.id, w.name, w.host, w.pid, w.queues, w.info, w.started_at, w.beat_at
from pgcelery.workers w
where w.lease_until > now()
order by w.id;
