-- A database restored from a back-up is behind Kafka. A person may let the next run adopt Kafka's position.
alter table sync_position add column adopt boolean not null default false;

-- Raises the fences above one that Kafka has seen: after a restore the sequence would hand out fences a second time. A small
-- gap is stepped over, a large one is leapt; one at a time, so that nobody is set back. The number comes from a record of a
-- tenant's own cluster: more claims than any back-up is behind, 2^40, are not believed and give null, for the sequence's end
-- would be the end of every tenant's claims.
create function raise_epoch(above bigint)
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
revoke all on function raise_epoch(bigint) from public;
grant execute on function raise_epoch(bigint) to freshet_app;
