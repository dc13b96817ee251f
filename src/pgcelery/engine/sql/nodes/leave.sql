-- A worker that has nothing running any more is gone.
delete from pgcelery.workers where id = $1
