-- Set what holds for a limit, or unset it; the queues whose workers have something to look at.
select pgcelery.set_limit_v1(%(name)s, %(key)s, %(slots)s::integer, %(weight)s::real,
                             %(rate)s::integer, %(period_s)s::double precision,
                             %(burst)s::integer);
