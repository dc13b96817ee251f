-- How much waits and runs in each queue (all of them when null).
select q.name,
       (select count(*) from pgcelery.ready r
        where r.queue_id = any (q.ids) or -r.queue_id = any (q.ids))::integer,
       (select count(*) from pgcelery.scheduled s where s.queue_id = any (q.ids))::integer,
       (select count(*) from pgcelery.running r where r.queue_id = any (q.ids))::integer,
       (select count(*) from pgcelery.gated g where g.queue_id = any (q.ids))::integer
from (select n.name, array_agg(n.id) as ids
      from pgcelery.queue_names n
      where %(names)s::text[] is null or n.name = any (%(names)s::text[])
      group by n.name) q
order by q.name;
