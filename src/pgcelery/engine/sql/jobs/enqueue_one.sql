-- Insert one plain job: 0, 1 if its id existed and was left alone, 2 if a worker was given it.
select pgcelery.enqueue_one_v2(%s, %s, %s, %s, %s, %s, %s, %s, %s);
