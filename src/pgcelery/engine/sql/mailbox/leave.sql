-- No messages any more.
delete from pgcelery.workers where id = %(id)s;
