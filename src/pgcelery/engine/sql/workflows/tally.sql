-- How many jobs of a workflow are where, by name.
select m.name, m.state, count(*)
from pgcelery.members_v1(%(id)s) m
group by m.name, m.state;
