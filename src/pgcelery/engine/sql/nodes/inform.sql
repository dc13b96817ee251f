-- What is kept of a worker for those who look, as it is now.
update pgcelery.workers set queues = $2, info = $3 where id = $1
