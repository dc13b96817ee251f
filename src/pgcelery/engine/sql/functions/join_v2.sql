-- Add parents to what waits already, in the caller's transaction, which creates them or goes before
-- the one that does. A place is a node: that waits for the parent too. Or it is a job that has not
-- ended: then whoever waits for it waits for the parent too, and notes it in `joined`. Where nobody
-- waits any more nothing happens. That `joined` is not null says that what it was sent with is not all
-- that it waits for. Children are locked in id order, as in advance_v1.
create function pgcelery.join_v2(parents text[], places text[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    with wanted as (
        select distinct on (p.parent, coalesce(n.job_id, e.child))
               p.parent, p.at, n.job_id is null as beside, coalesce(n.job_id, e.child) as child
        from unnest(parents, places) with ordinality as p(parent, place, at)
        left join pgcelery.nodes n on n.job_id = p.place
        left join pgcelery.edges e on n.job_id is null and e.parent = p.place
        order by p.parent, coalesce(n.job_id, e.child), p.at
    ), locked as (
        select n.job_id
        from pgcelery.nodes n
        where n.job_id in (select w.child from wanted w)
        order by n.job_id
        for update
    ), hung as (
        insert into pgcelery.edges (parent, child)
        select w.parent, l.job_id
        from wanted w
        join locked l on l.job_id = w.child
        on conflict do nothing
        returning edges.parent, edges.child
    ), grown as (
        select h.child, count(*)::integer as many,
               array_agg(h.parent order by w.at) filter (where w.beside) as joined
        from hung h
        join wanted w on w.parent = h.parent and w.child = h.child
        group by h.child
    )
    update pgcelery.nodes n
    set pending = n.pending + g.many, joined = coalesce(n.joined, '{}') || g.joined
    from grown g
    where n.job_id = g.child;
end
$$;
