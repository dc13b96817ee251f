-- Claim from throttled places what a worker's own rates allow.
select * from pgcelery.draw_v1($1, $2, $3)
