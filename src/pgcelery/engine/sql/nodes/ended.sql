-- What a run ended its job with, if it did.
select state, result from pgcelery.results where id = $1 and token = $2
