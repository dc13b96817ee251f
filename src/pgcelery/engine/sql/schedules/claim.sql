-- Lock a schedule for the transaction; how it stands, and the time.
select c.last_run_at, c.total_run_count, c.at
from pgcelery.claim_slot_v1(%(book)s, %(name)s, %(last_run_at)s, %(total_run_count)s, %(wait_s)s) c;
