-- Open a latch; it is held by a parent that is no job.
create function pgcelery.open_latch_v1(latch text) returns void
language sql
set search_path = pg_catalog, pg_temp
as $$
    with made as (
        insert into pgcelery.nodes (job_id, pending, joined)
        values (latch, 1, '{}')
        on conflict do nothing
        returning job_id
    )
    insert into pgcelery.edges (parent, child)
    select 'latch ' || m.job_id, m.job_id from made m;
$$;
