-- A round of upkeep, if this worker holds the lease on it.
select * from pgcelery.maintain_v3($1, $2, $3)
