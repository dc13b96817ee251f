-- Listen no more.
delete from pgcelery.listeners where id = %(id)s;
