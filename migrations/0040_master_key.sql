-- Turning a master key over while the service runs: which key is current, and what is still wrapped by another one.

-- The master keys that sealed, by name; the keys themselves are elsewhere. The one that became current last is current:
-- a process that has not looked yet, and seals by an older one, wraps nothing back.
create table master_key (
    name text primary key,
    current_since timestamptz not null default clock_timestamp()
);
grant select, insert, update on master_key to freshet_app;

create index totp_by_master_key on totp (master_key);

-- Every data key that is wrapped by a master key. A table with a column `wrapped_key` has its part here: a key that is
-- not counted is not turned over.
create view wrapped_key as
select 'workspace' as owner_kind, s.workspace_id as owner_id, s.id, s.master_key, s.wrapped_key
from secret as s
union all
select 'person', t.user_id, t.id, t.master_key, t.wrapped_key
from totp as t
union all
select 'organization', s.organization_id, s.id, s.master_key, s.wrapped_key
from sso_secret as s;

-- The next data keys, by id, that are wrapped by one of these master keys; of no use without the master key.
create function keys_to_rewrap(by_keys text[], after uuid, rows_max integer)
returns table (owner_kind text, owner_id uuid, id uuid, master_key text, wrapped_key bytea)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select k.owner_kind, k.owner_id, k.id, k.master_key, k.wrapped_key
    from wrapped_key as k
    where k.master_key = any (by_keys)
      and k.id > after
    order by k.id
    limit rows_max;
end;

-- How many secrets each master key wraps; one that wraps none and was current once counts 0.
create function secrets_by_master_key()
returns table (name text, secrets bigint)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select n.name, (select count(*) from wrapped_key as k where k.master_key = n.name)
    from (select m.name from master_key as m union select k.master_key from wrapped_key as k) as n
    order by n.name;
end;

do $$
declare
    dispatched text;
begin
    foreach dispatched in array array['keys_to_rewrap(text[], uuid, integer)', 'secrets_by_master_key()'] loop
        execute format('revoke all on function %s from public', dispatched);
        execute format('grant execute on function %s to freshet_app', dispatched);
    end loop;
end
$$;
