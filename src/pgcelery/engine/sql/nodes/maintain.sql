-- A round of upkeep, if this worker holds the lease on it.
select * from pgcelery.maintain_v2($1, $2, $3)
