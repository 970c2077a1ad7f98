-- The number that the claims are raised above comes from a record of a tenant's own cluster: more claims than any back-up is
-- behind, 2^40, are not believed and give null, for the sequence's end would be the end of every tenant's claims. One raises
-- at a time, so that nobody is set back.
create or replace function raise_epoch(above bigint)
returns bigint
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    reached bigint;
begin
    perform pg_advisory_xact_lock(hashtextextended('freshet epoch', 0));
    reached := nextval('epoch');
    if above - reached > 1099511627776 then
        return null;
    end if;
    if above - reached > 100000 then
        reached := setval('epoch', above);
    end if;
    while reached <= above loop
        reached := nextval('epoch');
    end loop;
    return reached;
end
$$;
