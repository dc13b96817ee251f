-- Wait for a transaction that is just ending a run, if there is one.
select 1 from pgcelery.running where token = $1 for update
