-- Ask to be told on a channel when these end. Read the results after this has committed.
select pgcelery.await_v1(%(ids)s, %(channel)s, %(keep_s)s);
