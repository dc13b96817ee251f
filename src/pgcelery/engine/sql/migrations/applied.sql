-- Which migrations the database has.
select number, breaking from pgcelery.migrations;
