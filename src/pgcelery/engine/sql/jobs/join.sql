-- Have jobs that are to be enqueued later join beside one that runs.
select pgcelery.join_v2(%(ids)s, array_fill(%(place)s::text, array[cardinality(%(ids)s::text[])]));
