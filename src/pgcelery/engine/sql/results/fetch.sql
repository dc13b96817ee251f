-- What is known of these ids; no row for those of which nothing is.
select f.job_id, f.state, f.result, f.finished_at from pgcelery.fetch_v1($1) f
