-- Take a latch away that nothing waits for.
select pgcelery.drop_latch_v1(%(id)s);
