-- Delete what waits in queues (all of them for null), as if it had never been sent; how many. What waits
-- for one of those hears that it did not complete.
create function pgcelery.purge_v2(queues integer[]) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    meant integer[] := array(select n.id from pgcelery.queue_names n
                             where queues is null or n.base_id = any (queues));
    holding text[];
    gone text[];
    awaited text[];
    freed record;
begin
    perform pgcelery.lock_lines_v1(pgcelery.gates_of_v1(array(
        select r.job_id from pgcelery.ready r
        where r.flags & 2 = 2 and -r.queue_id = any (meant))));
    with barred as (
        delete from pgcelery.gated g
        where g.queue_id = any (meant)
        returning g.job_id, g.flags
    ), unready as (
        delete from pgcelery.ready r
        where r.queue_id = any (meant) or -r.queue_id = any (meant)
        returning r.job_id, r.flags
    ), unscheduled as (
        delete from pgcelery.scheduled s
        where s.queue_id = any (meant)
        returning s.job_id, s.flags
    ), everything as (
        select b.job_id, b.flags from barred b
        union all select u.job_id, u.flags from unready u
        union all select s.job_id, s.flags from unscheduled s
    )
    select array(select e.job_id from everything e),
           array(select e.job_id from everything e where e.flags & 1 = 1),
           array(select u.job_id from unready u where u.flags & 2 = 2)
    into gone, awaited, holding;
    select * into freed from pgcelery.release_v2(holding);
    perform pgcelery.reopen_v1(freed.names, freed.keys);
    delete from pgcelery.jobs j using unnest(gone) as g(id) where j.id = g.id;
    if cardinality(awaited) > 0 then
        perform pgcelery.advance_v1(awaited, array_fill(false, array[cardinality(awaited)]));
    end if;
    return cardinality(gone);
end
$$;
