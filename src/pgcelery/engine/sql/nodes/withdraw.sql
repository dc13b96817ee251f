-- Take back what this worker has offered, but for what is being taken.
delete from pgcelery.offers
where ctid = any (array(select o.ctid from pgcelery.offers o where o.worker_id = $1 for update skip locked))
