-- Count what waits in queues and could run now; no further than to a number.
select count(*)::integer
from (
    select from pgcelery.ready r
    where r.queue_id in (select q.id from pgcelery.queues q where q.name = any (%(names)s::text[]))
    limit %(most)s
) w;
