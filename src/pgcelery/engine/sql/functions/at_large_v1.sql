-- Whether a job with gates waits or runs, whatever its result says.
create function pgcelery.at_large_v1(job pgcelery.jobs) returns boolean
language sql stable
as $$
    select exists (select from pgcelery.running r where r.job_id = job.id)
           or exists (select from pgcelery.ready r
                      where r.queue_id in (-job.queue_id, 0) and r.priority = job.priority
                        and r.seq = job.seq)
           or exists (select from pgcelery.gated g
                      join unnest(job.gates) x on x.name = g.name and x.key = g.key
                      where g.priority = job.priority and g.seq = job.seq);
$$;
