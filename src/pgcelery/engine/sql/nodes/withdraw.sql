-- Take back what this worker has offered. It waits for those who are taking an offer: once this has been
-- answered, what was handed to it is committed.
delete from pgcelery.offers where worker_id = $1
