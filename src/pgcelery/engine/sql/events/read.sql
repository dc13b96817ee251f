-- What came after a place, but for what was seen there already, with its age in seconds: ids are
-- given in the order of the inserts, which is not quite that of the commits.
select e.id, extract(epoch from clock_timestamp() - e.at)::double precision, e.body
from pgcelery.events e
where e.id > %(floor)s and e.id <> all (%(seen)s::bigint[])
order by e.id
limit 1000;
