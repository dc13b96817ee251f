-- Insert jobs; one row: the ids that were not created, and who is there for each.
select existing, holders from pgcelery.enqueue_v4(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s);
