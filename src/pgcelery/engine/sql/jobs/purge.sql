-- Delete what waits in queues (all of them when null), as if it had never been sent.
with unready as (
    delete from pgcelery.ready r
    where %(queues)s::text[] is null
       or r.queue_id in (select q.id from pgcelery.queues q where q.name = any (%(queues)s::text[]))
    returning r.job_id
), unscheduled as (
    delete from pgcelery.scheduled s
    where %(queues)s::text[] is null
       or s.queue_id in (select q.id from pgcelery.queues q where q.name = any (%(queues)s::text[]))
    returning s.job_id
), gone as (
    select u.job_id from unready u union all select u.job_id from unscheduled u
), jobs as (
    delete from pgcelery.jobs j using gone g where j.id = g.job_id
)
select count(*)::integer from gone;
