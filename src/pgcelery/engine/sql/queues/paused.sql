-- Queues that are paused, and since when.
select q.name, p.at from pgcelery.paused p join pgcelery.queues q on q.id = p.queue_id order by q.name;
