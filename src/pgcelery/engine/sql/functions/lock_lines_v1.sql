-- Lock lines until the end of the transaction, making those that are missing, in one order: whoever
-- needs several lines calls this first, once, and no two can wait for each other. A gate without a
-- strategy only names its line, and makes none.
create function pgcelery.lock_lines_v1(gates pgcelery.gate[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    names text[];
    keys text[];
    there integer;
begin
    loop
        insert into pgcelery.lines (name, key, own, slots, weight, strategy, rate, period_s, burst,
                                    fixed)
        select f.name, f.key, f.own, n.slots, n.weight, n.strategy, n.rate, n.period_s, n.burst, n.fixed
        from (select distinct on (g.name collate "C", g.key collate "C") g.name, g.key, g as own
              from unnest(gates) g
              where g.strategy is not null
                and not exists (select from pgcelery.lines l where l.name = g.name and l.key = g.key)
              order by g.name collate "C", g.key collate "C") f
        cross join lateral pgcelery.in_force_v1(f.own) n
        order by f.name collate "C", f.key collate "C"
        on conflict (name, key) do nothing;

        select array_agg(l.name), array_agg(l.key) into names, keys
        from (select distinct g.name, g.key from unnest(gates) g) u
        join pgcelery.lines l on l.name = u.name and l.key = u.key;
        perform
        from pgcelery.lines l
        where (l.name, l.key) in (select u.name, u.key from unnest(names, keys) as u(name, key))
        order by l.name, l.key
        for update;
        get diagnostics there = row_count;
        -- Fewer, when upkeep deleted an idle one in between.
        exit when there >= coalesce(cardinality(names), 0);
    end loop;
end
$$;
