-- The jobs of a workflow that have not ended: first those that wait for others, the last one first.
select m.id
from pgcelery.members_v1(%(id)s) m
where m.state < 10
order by m.state = 5 desc, m.seq desc;
