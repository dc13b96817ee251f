-- A pool process's round trip: a run that completed, and the claim of the next job of its queues.
select * from pgcelery.serve_v1($1, $2, $3, $4, $5, $6, $7, $8)
