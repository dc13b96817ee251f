-- Insert jobs; one row: the ids that already existed.
select pgcelery.enqueue_v2(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);
