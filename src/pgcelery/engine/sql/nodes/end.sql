-- A pool process's round trip: a run completed that no job waits for. And whether jobs wait in these
-- queues, of which the node was perhaps not told.
select e.ended, e.told, exists (select from pgcelery.ready r where r.queue_id = any ($5))
from pgcelery.end_v1($1, $2, $3, $4) e
