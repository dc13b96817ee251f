-- Delete what waits in queues (all of them for null), as if it had never been sent; how many.
create function pgcelery.purge_v1(queues integer[]) returns integer
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    holding text[];
    gone text[];
begin
    perform pgcelery.lock_keys_v1(array(
        select r.job_id from pgcelery.ready r
        where r.flags & 2 = 2 and (queues is null or r.queue_id = any (queues))
        union all
        select g.job_id from pgcelery.gated g where queues is null or g.queue_id = any (queues)));
    with barred as (
        delete from pgcelery.gated g
        where queues is null or g.queue_id = any (queues)
        returning g.job_id, g.key
    ), counted as (
        update pgcelery.keys k
        set waiting = k.waiting - b.fewer
        from (select b.key, count(*)::integer as fewer from barred b group by b.key) b
        where k.key = b.key
    ), unready as (
        delete from pgcelery.ready r
        where queues is null or r.queue_id = any (queues)
        returning r.job_id, r.flags
    ), unscheduled as (
        delete from pgcelery.scheduled s
        where queues is null or s.queue_id = any (queues)
        returning s.job_id
    )
    select array(select b.job_id from barred b union all select u.job_id from unready u
                 union all select s.job_id from unscheduled s),
           array(select u.job_id from unready u where u.flags & 2 = 2)
    into gone, holding;
    perform pgcelery.release_v1(holding);
    delete from pgcelery.jobs j using unnest(gone) as g(id) where j.id = g.id;
    return cardinality(gone);
end
$$;
