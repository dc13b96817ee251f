-- Hold, as long as this connection lives, the lock that tells so to those who take an offer of its.
select pg_try_advisory_lock(1885823845, hashtext($1))
