-- Give names their queue ids, making the queues that are missing.
select i.queue, i.queue_id from pgcelery.intern_v1(%(names)s) i;
