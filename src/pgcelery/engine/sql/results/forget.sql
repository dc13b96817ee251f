-- Delete results of ids, and the jobs among them that have ended; how many results.
select pgcelery.forget_v1(%(ids)s);
