-- A pool process's round trip: a run that completed, and the claim of what waited for it alone.
select * from pgcelery.relay_v3($1, $2, $3, $4, $5, $6, $7, $8, $9)
