-- Insert one plain job; whether its id existed already, and was left alone.
select pgcelery.enqueue_one_v1(%s, %s, %s, %s, %s, %s, %s, %s, %s);
