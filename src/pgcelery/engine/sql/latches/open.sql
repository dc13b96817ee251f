-- Open a latch; it is held by a parent that is no job.
with made as (
    insert into pgcelery.nodes (job_id, pending, joined)
    values (%(id)s, 1, '{}')
    on conflict do nothing
    returning job_id
)
insert into pgcelery.edges (parent, child)
select 'latch ' || m.job_id, m.job_id from made m;
