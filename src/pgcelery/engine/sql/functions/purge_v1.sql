-- Delete what waits in queues (all of them for null), as if it had never been sent; how many.
create or replace function pgcelery.purge_v1(queues integer[]) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    meant integer[] := array(select n.id from pgcelery.queue_names n
                             where queues is null or n.base_id = any (queues));
    holding text[];
    gone text[];
    freed record;
begin
    perform pgcelery.lock_lines_v1(pgcelery.gates_of_v1(array(
        select r.job_id from pgcelery.ready r
        where r.flags & 2 = 2 and -r.queue_id = any (meant))));
    with barred as (
        delete from pgcelery.gated g
        where g.queue_id = any (meant)
        returning g.job_id
    ), unready as (
        delete from pgcelery.ready r
        where r.queue_id = any (meant) or -r.queue_id = any (meant)
        returning r.job_id, r.flags
    ), unscheduled as (
        delete from pgcelery.scheduled s
        where s.queue_id = any (meant)
        returning s.job_id
    )
    select array(select b.job_id from barred b union all select u.job_id from unready u
                 union all select s.job_id from unscheduled s),
           array(select u.job_id from unready u where u.flags & 2 = 2)
    into gone, holding;
    select * into freed from pgcelery.release_v2(holding);
    perform pgcelery.reopen_v1(freed.names, freed.keys);
    delete from pgcelery.jobs j using unnest(gone) as g(id) where j.id = g.id;
    return cardinality(gone);
end
$$;
