-- Count ended jobs down at their children; give the jobs that wait for nobody any more, whose nodes
-- are gone then: failed when a parent did not complete, fed_by the parent if it had one only. Part of
-- the transaction that ends the parents, which has to find the freed a place (place_v1). Children
-- are locked in id order, so that two batches cannot deadlock. A child that is a latch has no job:
-- what waits for it is counted down in turn, and hears of what joined it.
create function pgcelery.free_v1(
    parent_ids text[], completed boolean[], out freed text[], out failed boolean[], out fed_by text[]
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    latches text[];
    whole boolean[];
    more record;
begin
    with gone as (
        delete from pgcelery.edges e
        using unnest(parent_ids, completed) as p(id, ok)
        where e.parent = p.id
        returning e.child, e.parent, p.ok
    ), arrivals as (
        select g.child, count(*)::integer as arrived,
               (count(*) filter (where not g.ok))::integer as bad, min(g.parent) as parent
        from gone g
        group by g.child
    ), locked as (
        select n.job_id, n.pending, n.failed, n.joined, a.arrived, a.bad, a.parent
        from arrivals a
        join pgcelery.nodes n on n.job_id = a.child
        order by n.job_id
        for update of n
    ), counted as (
        update pgcelery.nodes n
        set pending = n.pending - l.arrived, failed = n.failed + l.bad
        from locked l
        where n.job_id = l.job_id and l.pending > l.arrived
    ), rid as (
        delete from pgcelery.nodes n
        using locked l
        where n.job_id = l.job_id and l.pending <= l.arrived and l.joined is null
    )
    select array_agg(l.job_id) filter (where l.joined is null),
           array_agg(l.failed + l.bad > 0) filter (where l.joined is null),
           array_agg(case when l.arrived = 1 then l.parent end) filter (where l.joined is null),
           array_agg(l.job_id) filter (where l.joined is not null),
           array_agg(l.failed + l.bad = 0) filter (where l.joined is not null)
    into freed, failed, fed_by, latches, whole
    from locked l
    where l.pending <= l.arrived;

    if latches is null then
        return;
    end if;
    -- Jobs keep what joined them; a latch, which has no job, passes it on to what waits for it.
    with gone as (
        delete from pgcelery.nodes n
        using unnest(latches, whole) as l(id, ok)
        where n.job_id = l.id
        returning n.job_id, n.joined, l.ok
    ), kept as (
        update pgcelery.jobs j
        set joined = g.joined
        from gone g
        where j.id = g.job_id
        returning j.id, g.ok
    ), opened as (
        select g.job_id, g.joined, g.ok from gone g where g.job_id not in (select k.id from kept k)
    ), told as (
        update pgcelery.nodes n
        set joined = n.joined || o.joined
        from opened o
        join pgcelery.edges e on e.parent = o.job_id
        where n.job_id = e.child and cardinality(o.joined) > 0
    )
    select freed || array(select k.id from kept k order by k.id),
           failed || array(select not k.ok from kept k order by k.id),
           fed_by || array(select null::text from kept k),
           (select array_agg(o.job_id) from opened o), (select array_agg(o.ok) from opened o)
    into freed, failed, fed_by, latches, whole;

    if latches is not null then
        select * into more from pgcelery.free_v1(latches, whole);
        freed := freed || more.freed;
        failed := failed || more.failed;
        fed_by := fed_by || array_fill(null::text, array[coalesce(cardinality(more.freed), 0)]);
    end if;
end
$$;
