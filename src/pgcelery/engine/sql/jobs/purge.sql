-- Delete what waits in queues (all of them for null); how many.
select pgcelery.purge_v2(case when %(queues)s::text[] is not null then array(
    select q.id from pgcelery.queues q where q.name = any (%(queues)s::text[])) end);
