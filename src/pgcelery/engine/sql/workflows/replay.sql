-- Run jobs of a workflow again; the first one that has not ended, or the queues that got work.
select refused, woken
from pgcelery.replay_v1(%(workflow)s, %(ids)s, %(waits)s, %(pendings)s, %(awaited)s, %(payloads)s,
                        %(restores)s, %(drops)s, %(needs)s, %(edge_parents)s, %(edge_children)s);
