-- Let a latch go; one row: the queues that got work.
select pgcelery.close_latch_v1(%(id)s);
