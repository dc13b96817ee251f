-- Count what waits in queues and could run now; no further than to a number.
select count(*)::integer
from (
    select from pgcelery.ready r
    where r.queue_id = any (array(
        select u.id
        from pgcelery.queue_names n cross join lateral (values (n.id), (-n.id)) as u(id)
        where n.name = any (%(names)s::text[])))
    limit %(most)s
) w;
