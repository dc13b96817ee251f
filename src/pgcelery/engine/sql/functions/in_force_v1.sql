-- What holds for a line: what is set at run time for its key, else for its name, else what jobs say.
-- One row. Without settings of its own, so that it becomes part of the plan it is used in.
create function pgcelery.in_force_v1(said pgcelery.gate) returns setof pgcelery.gate
language sql stable
as $$
    select said.name, said.key,
           case when said.rate is null then coalesce(k.slots, n.slots, said.slots) end,
           coalesce(k.weight, n.weight, said.weight), said.strategy,
           case when said.rate is not null then coalesce(k.rate, n.rate, said.rate) end,
           case when k.rate is not null then k.period_s
                when n.rate is not null then n.period_s else said.period_s end,
           coalesce(k.burst, n.burst, said.burst), said.fixed, 1
    from (select) one
    left join pgcelery.limits k on k.name = said.name and k.key = said.key
    left join pgcelery.limits n on n.name = said.name and n.key is null;
$$;
