-- Whether a job waits or runs, whatever its result says: that may have been written by hand.
create function pgcelery.at_large_v2(job pgcelery.jobs) returns boolean
language sql stable
as $$
    select exists (select from pgcelery.running r where r.job_id = job.id)
           or exists (select from pgcelery.ready r
                      where r.queue_id = job.queue_id and r.priority = job.priority and r.tag = 0
                        and r.seq = job.seq)
           or exists (select from pgcelery.ready r
                      where r.queue_id in (-job.queue_id, 0) and r.priority = job.priority
                        and r.seq = job.seq)
           or exists (select from pgcelery.scheduled s
                      where s.queue_id = job.queue_id and s.due_at = job.due_at and s.seq = job.seq)
           or exists (select from pgcelery.nodes n where n.job_id = job.id)
           or exists (select from pgcelery.gated g
                      join unnest(job.gates) x on x.name = g.name and x.key = g.key
                      where g.priority = job.priority and g.seq = job.seq);
$$;
