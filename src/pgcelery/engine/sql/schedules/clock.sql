-- What time it is for all who share this database.
select clock_timestamp();
