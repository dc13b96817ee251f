-- The jobs of the workflow that an id stands for: its own, or that of any of its jobs. At most `limit`
-- of them (null: all), the first ones of each name; `total` says how many there are.
with root as (
    select coalesce((select j.workflow from pgcelery.jobs j where j.id = %(id)s), %(id)s) as id
), members as (
    select m.*, row_number() over (partition by m.name order by m.seq) as place
    from root
    cross join lateral pgcelery.members_v1(root.id) m
), picked as (
    select * from members m order by m.place, m.seq limit %(limit)s
)
select (select root.id from root), (select count(*) from members),
       p.id, p.name, q.name, p.state, p.created_at, p.started_at, p.finished_at,
       j.payload, (j.sent).payload, coalesce(p.joined, '{}')
from picked p
join pgcelery.jobs j on j.id = p.id
join pgcelery.queue_names q on q.id = p.queue_id
order by p.seq;
