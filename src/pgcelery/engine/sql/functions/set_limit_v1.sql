-- Set, or with nothing but a name and a key unset, what holds for a limit whatever jobs say: for one of
-- its lines, or with key null for all that have nothing of their own. Takes effect at once, for lines
-- that are there and those to come. Returns the queues whose workers have something to look at.
create function pgcelery.set_limit_v1(
    of_name text, of_key text, new_slots integer, new_weight real, new_rate integer,
    new_period_s double precision, new_burst integer
) returns integer[]
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
declare
    names text[];
    keys text[];
begin
    -- One change at a time, and none while somebody makes a line (lock_lines_v1), whom it would miss.
    lock table pgcelery.limits in exclusive mode;
    if coalesce(new_slots, new_weight, new_rate, new_burst) is null then
        delete from pgcelery.limits l where l.name = of_name and l.key is not distinct from of_key;
    elsif of_key is null then
        insert into pgcelery.limits (name, key, slots, weight, rate, period_s, burst)
        values (of_name, of_key, new_slots, new_weight, new_rate, new_period_s, new_burst)
        on conflict (name) where key is null do update
        set slots = excluded.slots, weight = excluded.weight, rate = excluded.rate,
            period_s = excluded.period_s, burst = excluded.burst, set_at = now();
    else
        insert into pgcelery.limits (name, key, slots, weight, rate, period_s, burst)
        values (of_name, of_key, new_slots, new_weight, new_rate, new_period_s, new_burst)
        on conflict (name, key) where key is not null do update
        set slots = excluded.slots, weight = excluded.weight, rate = excluded.rate,
            period_s = excluded.period_s, burst = excluded.burst, set_at = now();
    end if;
    perform from pgcelery.lines l
    where l.name = of_name and (of_key is null or l.key = of_key)
    order by l.name, l.key
    for update;
    with changed as (
        update pgcelery.lines l
        set slots = n.slots, weight = n.weight, rate = n.rate, period_s = n.period_s, burst = n.burst,
            -- What is owed is units, not time.
            tat = case when l.tat > clock_timestamp() and not n.fixed and not l.fixed and l.rate > 0 and n.rate > 0
                       then clock_timestamp() + (l.tat - clock_timestamp())
                            * ((n.period_s / n.rate) / (l.period_s / l.rate))
                       else l.tat end
        from (select f.*
              from pgcelery.lines i
              cross join lateral pgcelery.in_force_v1(i.own) f
              where i.name = of_name and (of_key is null or i.key = of_key)) n
        where l.name = n.name and l.key = n.key
        returning l.name, l.key
    )
    select array_agg(c.name), array_agg(c.key) into names, keys from changed c;
    -- Who has one of these has its line, and has seen the limit.
    update pgcelery.timers t set due_at = clock_timestamp()
    where t.name = of_name and (of_key is null or t.key = of_key) and t.due_at > clock_timestamp();
    return pgcelery.reopen_v1(names, keys)
           || array(select distinct t.queue_id from pgcelery.timers t
                    where t.name = of_name and (of_key is null or t.key = of_key));
end
$$;
