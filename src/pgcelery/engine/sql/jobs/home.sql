-- Which database this is: equal for two connections if it is the same one.
select current_database(), pg_postmaster_start_time()::text, to_regclass('pgcelery.jobs')::oid::text;
