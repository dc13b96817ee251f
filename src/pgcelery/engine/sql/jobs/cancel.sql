-- Cancel jobs; a row an id with its state.
select job_id, state from pgcelery.cancel_v1(%(ids)s, %(results)s, %(terminate)s, %(signum)s::smallint);
