-- Which of these ids ended otherwise than completed.
select f.job_id, f.state, f.result, f.finished_at from pgcelery.failures_v1(%(ids)s) f;
