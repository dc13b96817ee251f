-- Open a latch; it is held by a parent that is no job.
select pgcelery.open_latch_v1(%(id)s);
