-- Claims by pool processes that never heard of them. These runs did not begin, so they go back as they
-- were; only to be sent once the run that they would have followed has been recorded.
with lost as (
    delete from pgcelery.running r
    where r.token = any ($1)
    returning r.job_id, r.delivery, r.flags
)
insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)
select j.queue_id, j.priority, j.seq, j.id, l.delivery - 1, l.flags
from lost l
join pgcelery.jobs j on j.id = l.job_id
