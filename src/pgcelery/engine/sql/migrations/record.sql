-- Note a migration as applied, in its own transaction.
insert into pgcelery.migrations (number, name, breaking) values (%s, %s, %s);
