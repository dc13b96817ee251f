-- A node's runs that end with "again".
select * from pgcelery.reschedule_v2($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
