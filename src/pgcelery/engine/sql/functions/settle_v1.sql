-- Bring lines up to what newcomers say of them, and give those with a rate their timers. The lines are
-- locked.
create function pgcelery.settle_v1(came pgcelery.comers[]) returns void
language plpgsql
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set plan_cache_mode = force_generic_plan
as $$
begin
    update pgcelery.lines l
    set own = n.own, slots = n.slots, weight = n.weight, strategy = n.strategy, rate = n.rate,
        period_s = n.period_s, burst = n.burst, fixed = n.fixed,
        -- What is owed is units, not time.
        tat = case when l.tat > clock_timestamp() and not n.fixed and not l.fixed and l.rate > 0 and n.rate > 0
                   then clock_timestamp() + (l.tat - clock_timestamp())
                        * ((n.period_s / n.rate) / (l.period_s / l.rate))
                   else l.tat end
    from (select d.name, d.key, d.own, f.slots, f.weight, f.strategy, f.rate, f.period_s,
                 f.burst, f.fixed
          from (select c.name, c.key, (array_agg(c.own order by c.id desc))[1] as own
                from unnest(came) c
                where (c.own).strategy is not null
                group by c.name, c.key) d
          cross join lateral pgcelery.in_force_v1(d.own) f) n
    where l.name = n.name and l.key = n.key
      and l.own is distinct from n.own;

    if not exists (select from pgcelery.lines l, unnest(came) c
                   where l.name = c.name and l.key = c.key and l.rate is not null) then
        return;
    end if;

    insert into pgcelery.timers (queue_id, name, key, due_at)
    select distinct c.queue_id, l.name, l.key, clock_timestamp()
    from unnest(came) c
    join pgcelery.lines l on l.name = c.name and l.key = c.key
    where l.rate is not null and c.queue_id is not null
    order by c.queue_id, l.name, l.key
    on conflict (queue_id, name, key) do nothing;
end
$$;
