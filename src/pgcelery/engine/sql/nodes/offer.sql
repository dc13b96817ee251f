-- Offer to run jobs, and renew what was offered.
select * from pgcelery.offer_v1($1, $2, $3, $4, $5)
