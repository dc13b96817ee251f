-- Put a message into the inboxes of live workers; how many.
select pgcelery.broadcast_v1(%(body)s, %(destination)s::text[], %(reply_to)s, %(ttl_s)s);
