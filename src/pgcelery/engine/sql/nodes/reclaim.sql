-- After a reconnect: runs that were claimed for this worker in an answer that never came. They did
-- not begin, so they go back as they were.
with lost as (
    delete from pgcelery.running r
    where r.worker_id = $1 and r.token <> all ($2)
    returning r.job_id, r.delivery, r.flags
)
insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
select j.queue_id, j.priority, j.seq, j.id, l.delivery - 1, l.flags
from lost l
join pgcelery.jobs j on j.id = l.job_id
