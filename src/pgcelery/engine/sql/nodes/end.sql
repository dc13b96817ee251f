-- A pool process's round trip: the last run of a chain completed.
select * from pgcelery.end_v1($1, $2, $3, $4)
