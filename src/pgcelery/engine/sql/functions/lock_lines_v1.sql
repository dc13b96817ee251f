-- Lock lines until the end of the transaction, making those that are missing, in one order: whoever
-- needs several lines calls this first, once, and no two can wait for each other. What is missing is
-- made before anything is locked. A gate without a strategy only names its line, and makes none.
create function pgcelery.lock_lines_v1(gates pgcelery.gate[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    lacking integer;
begin
    lock table pgcelery.limits in row share mode;  -- set_limit_v1 waits, and then sees what is made here
    loop
        -- Looked up one by one: where there are no statistics, a join would compare all with all.
        if exists (select from unnest(gates) g
                   where g.strategy is not null
                     and (select true from pgcelery.lines l
                          where l.name = g.name and l.key = g.key limit 1) is null) then
            insert into pgcelery.lines (name, key, own, slots, weight, strategy, rate, period_s, burst,
                                        fixed)
            select f.name, f.key, f.own, n.slots, n.weight, n.strategy, n.rate, n.period_s, n.burst,
                   n.fixed
            from (select distinct on (g.name collate "C", g.key collate "C") g.name, g.key, g as own
                  from unnest(gates) g
                  where g.strategy is not null
                    and (select true from pgcelery.lines l
                         where l.name = g.name and l.key = g.key limit 1) is null
                  order by g.name collate "C", g.key collate "C") f
            cross join lateral pgcelery.in_force_v1(f.own) n
            order by f.name collate "C", f.key collate "C"
            on conflict (name, key) do nothing;
        end if;

        with wanted as materialized (
            select g.name collate "C" as name, g.key collate "C" as key,
                   bool_or(g.strategy is not null) as must
            from unnest(gates) g
            group by g.name collate "C", g.key collate "C"
            order by g.name collate "C", g.key collate "C"
        ), locked as materialized (
            select w.must
            from wanted w
            cross join lateral (select from pgcelery.lines i
                                where i.name = w.name and i.key = w.key
                                limit 1 for update) l
        )
        select (select count(*) from wanted w where w.must)
               - (select count(*) from locked k where k.must)
        into lacking;
        exit when lacking <= 0;  -- else upkeep has deleted an idle one in between
    end loop;
end
$$;
