-- How much waits and runs in each queue (all of them when null).
select q.name,
       (select count(*) from pgcelery.ready r where r.queue_id = q.id)::integer,
       (select count(*) from pgcelery.scheduled s where s.queue_id = q.id)::integer,
       (select count(*) from pgcelery.running r where r.queue_id = q.id)::integer,
       (select count(*) from pgcelery.gated g where g.queue_id = q.id)::integer
from pgcelery.queues q
where %(names)s::text[] is null or q.name = any (%(names)s::text[])
order by q.name;
