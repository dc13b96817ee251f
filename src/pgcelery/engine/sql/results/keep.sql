-- Keep something under an id that is no job's; whether it was.
select pgcelery.keep_v1(%(id)s, %(data)s, %(ttl_s)s);
