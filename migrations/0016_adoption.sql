-- A database restored from a back-up is behind Kafka. A person may let the next run adopt Kafka's position.
alter table sync_position add column adopt boolean not null default false;

-- Raises the fences above one that Kafka has seen: after a restore the sequence would hand out fences a second time. A small
-- gap is stepped over, so that nobody who draws at the same moment is set back; a large one is leapt.
create function raise_epoch(above bigint)
returns bigint
language plpgsql volatile security definer set search_path = public, pg_temp
as $$
declare
    reached bigint := nextval('epoch');
begin
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
