-- Let a latch go; one row: the queues that got work.
select pgcelery.advance_v1(array['latch ' || %(id)s::text], array[true]);
