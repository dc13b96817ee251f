-- Those of these that are final; if none is, whoever ends one of them will tell on a channel. Look
-- once more after this has committed: one that was ending meanwhile has not seen who waits.
select f.job_id, f.state, f.result, f.finished_at from pgcelery.await_v1($1, $2, $3::float8) f
