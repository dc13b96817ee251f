-- A token under which a pool process may claim, known to its node before it does.
select nextval('pgcelery.tokens')
