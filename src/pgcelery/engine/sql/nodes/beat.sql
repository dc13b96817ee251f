-- Renew the lease; fetch requests to cancel, and messages.
select * from pgcelery.beat_v2($1, $2)
