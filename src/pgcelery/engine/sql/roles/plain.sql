-- Have the catalog's functions write all names with their schemas.
select set_config('search_path', 'pg_catalog', false);
