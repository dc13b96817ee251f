-- Have the next step look at lines whose slots were given back, or whose limit has changed; only those
-- in which somebody waits. Returns the queues of the first who do.
create function pgcelery.reopen_v1(names text[], keys text[]) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    woken integer[];
begin
    with waited_in as (
        select u.name, u.key, w.queue_id
        from (select distinct u.name, u.key from unnest(names, keys) as u(name, key)) u
        cross join lateral (
            select g.queue_id from pgcelery.gated g
            where g.name = u.name and g.key = u.key
            order by g.priority, g.seq limit 1
        ) w
    ), told as (
        insert into pgcelery.comers (name, key, queue_id)
        select w.name, w.key, w.queue_id from waited_in w
    )
    select array(select distinct w.queue_id from waited_in w) into woken;
    return woken;
end
$$;
