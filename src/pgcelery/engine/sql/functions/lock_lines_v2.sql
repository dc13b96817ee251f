-- What lock_lines_v1 does, for a step: lock the lines of slots that are given back (`slot_names`,
-- `slot_keys`) and of newcomers, whose lines are made if they are missing; mostly none is. `names` and
-- `keys` are those of the newcomers' lines that have to be looked at: a line that is full and just lets
-- its jobs wait need not be, as whoever gives a slot back looks at it. `news`: a newcomer says something
-- new of its line, or that has a rate, so that there is something for settle_v1 to do.
create function pgcelery.lock_lines_v2(
    slot_names text[], slot_keys text[], came pgcelery.comers[],
    out names text[], out keys text[], out news boolean
)
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
declare
    lacking boolean;
begin
    lock table pgcelery.limits in row share mode;  -- as in lock_lines_v1
    lacking := exists (select from unnest(came) c
                       where (c.own).strategy is not null
                         and (select true from pgcelery.lines l
                              where l.name = c.name and l.key = c.key limit 1) is null);
    if not lacking then
        with wanted as materialized (
            select distinct w.name collate "C" as name, w.key collate "C" as key, w.own, w.coming
            from (select s.name, s.key, null::pgcelery.gate as own, false as coming
                  from unnest(slot_names, slot_keys) as s(name, key)
                  union all
                  select c.name, c.key, c.own, true from unnest(came) c) w
            order by 1, 2
        ), locked as materialized (
            select w.name, w.key, w.coming, (w.own).strategy is not null as must,
                   w.coming and (l.rate is not null
                                 or ((w.own).strategy is not null and w.own is distinct from l.own)) as news,
                   l.strategy = 0 and l.in_use >= l.slots as full
            from wanted w
            cross join lateral (select i.own, i.rate, i.strategy, i.in_use, i.slots
                                from pgcelery.lines i
                                where i.name = w.name and i.key = w.key
                                limit 1 for update) l
        )
        select (select count(*) from wanted w where (w.own).strategy is not null)
               > count(*) filter (where k.must),
               bool_or(k.news),
               array_agg(k.name) filter (where k.coming and (k.news or k.full is not true)),
               array_agg(k.key) filter (where k.coming and (k.news or k.full is not true))
        into lacking, news, names, keys
        from locked k;
    end if;
    if lacking then
        perform pgcelery.lock_lines_v1(array(
            select row(s.name, s.key, null, null, null, null, null, null, null, null)::pgcelery.gate
            from unnest(slot_names, slot_keys) as s(name, key)
            union all
            select coalesce(c.own, row(c.name, c.key, null, null, null, null, null, null, null,
                                       null)::pgcelery.gate)
            from unnest(came) c));
        news := true;
        select array_agg(c.name), array_agg(c.key) into names, keys
        from (select distinct u.name, u.key from unnest(came) u) c;
    end if;
end
$$;
