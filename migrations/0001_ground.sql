-- The ground every noun stands on: the application's role, the tenant of a transaction, this installation.

-- The role the service logs in as. It owns nothing and bypasses nothing; `freshet migrate` runs as the owner.
do $$
begin
    create role freshet_app nologin;
exception
    when duplicate_object or unique_violation then null;   -- Roles belong to the cluster; another database made it.
end
$$;

grant usage on schema public to freshet_app;

-- The workspace of this transaction. After a transaction that used `set local` the setting is '' and not NULL on
-- the pooled connection, and ''::uuid would be an error: hence nullif. NULL matches no row.
create function current_workspace() returns uuid
language sql stable parallel safe
return nullif(current_setting('freshet.workspace_id', true), '')::uuid;

-- Drawn once; part of every transactional id, so two installations on one Kafka cluster stay apart. A restored
-- backup keeps it on purpose.
create table installation (
    only_row boolean primary key default true constraint installation_is_one check (only_row),
    id uuid not null default gen_random_uuid(),
    created_at timestamptz not null default now()
);
insert into installation default values;
grant select on installation to freshet_app;

-- Fences: every claim of a run or an operation takes the next one, so a later claim has a greater number.
create sequence epoch;

-- Tells listeners that a row changed: `run <workspace> <id>`. Ids only, never values.
create function notify_change() returns trigger
language plpgsql
as $$
begin
    perform pg_notify('freshet', tg_argv[0] || ' ' || new.workspace_id || ' ' || new.id);
    return null;
end
$$;
