-- Write a result outside of a run's end; false when it is final already.
select pgcelery.put_result_v1(%(id)s, %(state)s::smallint, %(result)s, %(ttl_s)s);
