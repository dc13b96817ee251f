-- Give a queue a place for what its jobs ask of a worker, if it has none yet; its id.
select pgcelery.intern_place_v1(%(queue_id)s, %(wants)s);
