-- The ids of queues that exist.
select q.name, q.id from pgcelery.queues q where q.name = any (%(names)s);
