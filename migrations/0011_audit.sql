-- The audit log: who did what. Insert-only for the application.
create table audit_event (
    workspace_id uuid not null references workspace (id),
    id uuid primary key,
    at timestamptz not null default now(),
    -- 'api_key' or 'command'.
    actor_kind text not null,
    actor_id uuid,
    -- 'connection.created', 'sync.activated' …
    action text not null,
    target_kind text not null,
    target_id uuid not null,
    request_id uuid,
    -- What changed, from an allow-list per kind; never a secret, never a row value.
    changes jsonb not null default '{}',
    constraint audit_event_in_workspace unique (workspace_id, id)
);
create index audit_event_by_workspace on audit_event (workspace_id, id desc);

-- The answers to requests with an `Idempotency-Key`; kept for a day.
create table idempotency_key (
    workspace_id uuid not null references workspace (id),
    key text not null constraint idempotency_key_length check (char_length(key) between 1 and 255),
    route text not null,
    body_sha256 bytea not null,
    -- Null while the first request is being worked on.
    status smallint,
    headers jsonb,
    body text,
    created_at timestamptz not null default now(),
    primary key (workspace_id, key)
);
create index idempotency_key_age on idempotency_key (workspace_id, created_at);

do $$
declare
    tenant_table text;
begin
    foreach tenant_table in array array['audit_event', 'idempotency_key'] loop
        execute format('alter table %I enable row level security', tenant_table);
        execute format('alter table %I force row level security', tenant_table);
        execute format('create policy tenant on %I using (workspace_id = (select current_workspace()))'
                       ' with check (workspace_id = (select current_workspace()))', tenant_table);
    end loop;
end
$$;
grant select, insert on audit_event to freshet_app;
grant select, insert, update, delete on idempotency_key to freshet_app;
