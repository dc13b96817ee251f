-- Live lines, and what is set at run time whether or not it has one: those with most waiting first. A
-- value set for a name is a row of its own, without a key, and comes first among those of the name.
-- Waiting is counted up to 1000.
with live as (
    select l.name, l.key, l.slots, l.in_use, l.weight, l.strategy, l.rate, l.period_s, l.burst,
           l.fixed, l.own,
           case when l.rate is not null then pgcelery.opens_v1(l, 1, statement_timestamp()) end
               as opens_at,
           (select count(*) from (select from pgcelery.gated g
                                  where g.name = l.name and g.key = l.key limit 1000) w)::integer
               as waiting
    from pgcelery.lines l
    where (%(name)s::text is null or l.name = %(name)s)
      and (%(key)s::text is null or l.key = %(key)s)
), given as (
    select m.*
    from pgcelery.limits m
    where (%(name)s::text is null or m.name = %(name)s)
      and (%(key)s::text is null or m.key = %(key)s or m.key is null)
)
select coalesce(v.name, m.name), coalesce(v.key, m.key),
       case when v.name is null then null when v.rate is null then 'slots' else 'rate' end,
       v.in_use, v.slots, v.weight, v.strategy, v.rate, v.period_s, v.burst, v.fixed,
       coalesce(v.waiting, 0),
       case when v.opens_at > statement_timestamp() then v.opens_at end,
       (v.own).slots, (v.own).weight, (v.own).rate, (v.own).period_s, (v.own).burst,
       m.slots, m.weight, m.rate, m.period_s, m.burst, m.set_at, n.set_at
from live v
full join given m on m.name = v.name and m.key = v.key
left join given n on n.name = v.name and n.key is null
where %(key)s::text is null or coalesce(v.key, m.key) is not null
order by (%(name)s::text is not null and coalesce(v.key, m.key) is null) desc,
         coalesce(v.waiting, 0) desc, coalesce(v.in_use, 0) desc, coalesce(v.name, m.name),
         coalesce(v.key, m.key) nulls first
limit %(limit)s;
