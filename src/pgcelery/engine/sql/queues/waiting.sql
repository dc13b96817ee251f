-- Count what waits in queues and could run now, in those of their places that a worker suits (all
-- when null); no further than to a number. A paused queue has none.
select count(*)::integer
from (
    select from pgcelery.ready r
    where r.queue_id = any (array(
        select u.id
        from pgcelery.queue_names n cross join lateral (values (n.id), (-n.id)) as u(id)
        where n.name = any (%(names)s::text[])
          and (%(only)s::integer[] is null or n.id = any (%(only)s::integer[]))
          and n.base_id not in (select p.queue_id from pgcelery.paused p)))
    limit %(most)s
) w;
