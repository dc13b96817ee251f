-- Insert jobs of which one waits for no other, and hand that to a worker if one offers to run it; one row:
-- the ids that were not created, who is there for each, and whether it was handed over.
select e.existing, e.holders, pgcelery.hand_v1(%s, %s)
from pgcelery.enqueue_v4(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) e;
