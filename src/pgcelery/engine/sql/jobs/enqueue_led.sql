-- Insert jobs of which one waits for no other, and hand that to a worker if one offers to run it; one row:
-- the ids that were not created, who is there for each, and whether it was handed over. What was there
-- before is not: it may have been delivered already, and that counts.
select e.existing, e.holders, case when e.existing = '{}' then pgcelery.hand_v1(%s, %s) end
from pgcelery.enqueue_v4(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) e;
