-- The id of a queue's place.
select p.id from pgcelery.places p where p.queue_id = %(queue_id)s and p.wants = %(wants)s;
