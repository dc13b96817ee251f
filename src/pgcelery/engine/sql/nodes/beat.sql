-- Renew the lease; fetch requests to cancel, and messages.
select * from pgcelery.beat_v1($1, $2)
