-- What lock_lines_v1 does, for a step: lock the lines of slots that are given back (`names`, `keys`) and
-- of newcomers, whose lines are made if they are missing. Mostly none is. Returns whether there is
-- anything for settle_v1 to do: a newcomer says something new of its line, or the line has a rate.
create function pgcelery.lock_lines_v2(names text[], keys text[], came pgcelery.comers[])
returns boolean
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    lacking boolean;
    news boolean;
begin
    lock table pgcelery.limits in row share mode;
    lacking := exists (select from unnest(came) c
                       where (c.own).strategy is not null
                         and (select true from pgcelery.lines l
                              where l.name = c.name and l.key = c.key limit 1) is null);
    if not lacking then
        with wanted as materialized (
            select distinct w.name collate "C" as name, w.key collate "C" as key, w.own, w.coming
            from (select s.name, s.key, null::pgcelery.gate as own, false as coming
                  from unnest(names, keys) as s(name, key)
                  union all
                  select c.name, c.key, c.own, true from unnest(came) c) w
            order by 1, 2
        ), locked as materialized (
            select w.own, w.coming, l.own as known, l.rate
            from wanted w
            cross join lateral (select i.own, i.rate from pgcelery.lines i
                                where i.name = w.name and i.key = w.key
                                limit 1 for update) l
        )
        select (select count(*) from wanted w where (w.own).strategy is not null)
               > count(*) filter (where (k.own).strategy is not null),
               bool_or(k.coming and (k.rate is not null
                                     or ((k.own).strategy is not null and k.own is distinct from k.known)))
        into lacking, news
        from locked k;
    end if;
    if lacking then
        perform pgcelery.lock_lines_v1(array(
            select row(s.name, s.key, null, null, null, null, null, null, null, null)::pgcelery.gate
            from unnest(names, keys) as s(name, key)
            union all
            select coalesce(c.own, row(c.name, c.key, null, null, null, null, null, null, null,
                                       null)::pgcelery.gate)
            from unnest(came) c));
        news := true;
    end if;
    return news;
end
$$;
