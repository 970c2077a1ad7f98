-- People: who they are, how they prove it, what they belong to.
create table app_user (
    id uuid primary key,
    email text not null constraint app_user_email_shape
        check (char_length(email) between 3 and 254 and email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    name text not null constraint app_user_name_length check (char_length(name) between 1 and 200),
    email_verified_at timestamptz,
    -- Sees to what belongs to the installation: the first who signed up, and whom such a one names.
    instance_admin boolean not null default false,
    disabled_at timestamptz,
    created_at timestamptz not null default now()
);
-- Two people of one address, in whatever case it is written, could not be told apart at sign-in.
create unique index app_user_email_taken on app_user (lower(email));

-- Argon2id, in PHC's form. None for those who sign in by an issuer alone.
create table password (
    user_id uuid primary key references app_user (id),
    hash text not null,
    changed_at timestamptz not null default now()
);

-- The second factor: a secret of RFC 6238, sealed. It counts from its first right code on.
create table totp (
    user_id uuid primary key references app_user (id),
    id uuid not null,
    master_key text not null,
    wrapped_key bytea not null,
    ciphertext bytea not null,
    confirmed_at timestamptz,
    -- The last step of 30 s that a code was taken for: each is good once.
    last_step bigint not null default 0,
    created_at timestamptz not null default now()
);

create table recovery_code (
    user_id uuid not null references app_user (id),
    code_hash bytea not null constraint recovery_code_hash_length check (octet_length(code_hash) = 32),
    used_at timestamptz,
    primary key (user_id, code_hash)
);

-- Whom an issuer knows a person as. Never the e-mail address: it can be given to somebody else.
create table identity (
    user_id uuid not null references app_user (id),
    issuer text not null,
    subject text not null,
    created_at timestamptz not null default now(),
    primary key (issuer, subject)
);
create index identity_by_user on identity (user_id);

create table session (
    user_id uuid not null references app_user (id),
    id uuid primary key,
    token_hash bytea not null constraint session_hash_length check (octet_length(token_hash) = 32),
    -- The second factor is still to come; such a session opens nothing else.
    pending boolean not null,
    -- How it was proved who it is (RFC 8176): pwd, otp, fed …
    amr text[] not null,
    -- When; dangerous acts want it recent.
    auth_at timestamptz not null default now(),
    created_at timestamptz not null default now(),
    used_at timestamptz not null default now(),
    idle_hours integer not null,
    expires_at timestamptz not null,
    revoked_at timestamptz,
    ip text,
    user_agent text
);
create unique index session_by_token on session (token_hash);
create index session_by_user on session (user_id, id desc);

-- A person's key for programs: it may what its person may, in the workspace that the request names.
create table personal_token (
    user_id uuid not null references app_user (id),
    id uuid primary key,
    name text not null constraint personal_token_name_length check (char_length(name) between 1 and 200),
    key_id text not null,
    secret_hash bytea not null constraint personal_token_hash_length check (octet_length(secret_hash) = 32),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz,
    last_used_at timestamptz
);
create unique index personal_token_by_key_id on personal_token (key_id);
create index personal_token_by_user on personal_token (user_id, id desc);

-- What was sent by mail to prove an address: good once, and not for long.
create table mailed_token (
    user_id uuid not null references app_user (id),
    token_hash bytea primary key constraint mailed_token_hash_length check (octet_length(token_hash) = 32),
    purpose text not null constraint mailed_token_purpose_known check (purpose in ('verify', 'reset')),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    used_at timestamptz
);
create index mailed_token_by_user on mailed_token (user_id, purpose);

-- A role of a person in an organization, or in one workspace of it.
create table membership (
    organization_id uuid not null references organization (id),
    id uuid primary key,
    user_id uuid not null references app_user (id),
    workspace_id uuid,
    role text not null constraint membership_role_known
        check (role in ('viewer', 'operator', 'editor', 'admin', 'owner')),
    row_version bigint not null default 1,
    created_at timestamptz not null default now(),
    constraint membership_taken unique nulls not distinct (organization_id, user_id, workspace_id),
    constraint membership_of_workspace foreign key (organization_id, workspace_id)
        references workspace (organization_id, id)
);
create index membership_by_user on membership (user_id);

create table invitation (
    organization_id uuid not null references organization (id),
    id uuid primary key,
    email text not null constraint invitation_email_shape
        check (char_length(email) between 3 and 254 and email ~ '^[^@[:space:]]+@[^@[:space:]]+$'),
    workspace_id uuid,
    role text not null constraint invitation_role_known
        check (role in ('viewer', 'operator', 'editor', 'admin', 'owner')),
    token_hash bytea not null constraint invitation_hash_length check (octet_length(token_hash) = 32),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    accepted_at timestamptz,
    revoked_at timestamptz,
    constraint invitation_of_workspace foreign key (organization_id, workspace_id)
        references workspace (organization_id, id)
);
create unique index invitation_by_token on invitation (token_hash);
create index invitation_by_organization on invitation (organization_id, id desc);

-- Failures to sign in, by a hash of the address that was typed: it need not be anybody's.
create table sign_in_failure (
    key bytea primary key,
    failures integer not null,
    last_at timestamptz not null
);

do $$
declare
    person_table text;
begin
    foreach person_table in array array['password', 'totp', 'recovery_code', 'identity', 'session', 'personal_token',
                                        'mailed_token'] loop
        execute format('alter table %I enable row level security', person_table);
        execute format('alter table %I force row level security', person_table);
        execute format('create policy person on %I using (user_id = (select current_person()))'
                       ' with check (user_id = (select current_person()))', person_table);
        execute format('create policy dispatcher on %I to current_user using (true) with check (true)', person_table);
    end loop;
end
$$;
grant select, insert, update, delete on password, totp, recovery_code, identity, session, personal_token, mailed_token
    to freshet_app;

alter table membership enable row level security;
alter table membership force row level security;
create policy tenant on membership
    using (organization_id = (select current_organization()))
    with check (organization_id = (select current_organization()));
create policy person on membership for select using (user_id = (select current_person()));
create policy dispatcher on membership to current_user using (true) with check (true);
grant select, insert, update, delete on membership to freshet_app;

alter table invitation enable row level security;
alter table invitation force row level security;
create policy tenant on invitation
    using (organization_id = (select current_organization()))
    with check (organization_id = (select current_organization()));
create policy dispatcher on invitation to current_user using (true) with check (true);
grant select, insert, update on invitation to freshet_app;

-- A person is seen by itself, and by the organizations that it is a member of.
alter table app_user enable row level security;
alter table app_user force row level security;
create policy person on app_user
    using (id = (select current_person()))
    with check (id = (select current_person()));
create policy member on app_user for select
    using (exists (select 1 from membership as m
                   where m.user_id = app_user.id
                     and m.organization_id = (select current_organization())));
create policy dispatcher on app_user to current_user using (true) with check (true);
grant select, insert, update on app_user to freshet_app;

alter table sign_in_failure enable row level security;
alter table sign_in_failure force row level security;
create policy dispatcher on sign_in_failure to current_user using (true) with check (true);

-- A person sees the organizations and workspaces that it is a member of.
create policy member on organization for select
    using (exists (select 1 from membership as m
                   where m.organization_id = organization.id
                     and m.user_id = (select current_person())));
create policy member on workspace for select
    using (exists (select 1 from membership as m
                   where m.organization_id = workspace.organization_id
                     and (m.workspace_id is null or m.workspace_id = workspace.id)
                     and m.user_id = (select current_person())));

-- What is looked up before it is known who asks. Each says nothing that the asker has not shown to know, but the
-- first, which serves sign-in alone.
create function find_user(address text)
returns table (id uuid, disabled boolean)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select u.id, u.disabled_at is not null from app_user as u where lower(u.email) = lower(address);
end;

create function are_there_users() returns boolean
language sql stable security definer set search_path = public, pg_temp
return exists (select 1 from app_user);

create function find_session(token bytea)
returns table (user_id uuid, id uuid, pending boolean)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    -- Once a minute is exact enough for idleness, and keeps the row quiet.
    update session as s set used_at = now()
    where s.token_hash = token
      and s.revoked_at is null
      and s.expires_at > now()
      and s.used_at > now() - make_interval(hours => s.idle_hours)
      and s.used_at < now() - interval '1 minute';
    select s.user_id, s.id, s.pending
    from session as s
    join app_user as u on u.id = s.user_id
    where s.token_hash = token
      and s.revoked_at is null
      and s.expires_at > now()
      and s.used_at > now() - make_interval(hours => s.idle_hours)
      and u.disabled_at is null;
end;

create function find_personal_token(wanted text)
returns table (user_id uuid, id uuid, secret_hash bytea, usable boolean)
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    update personal_token as t set last_used_at = now()
    where t.key_id = wanted and (t.last_used_at is null or t.last_used_at < now() - interval '1 minute');
    select t.user_id, t.id, t.secret_hash,
           t.revoked_at is null and t.expires_at > now() and u.disabled_at is null
    from personal_token as t
    join app_user as u on u.id = t.user_id
    where t.key_id = wanted;
end;

create function find_mailed_token(token bytea, wanted text)
returns table (user_id uuid)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select t.user_id from mailed_token as t
    where t.token_hash = token and t.purpose = wanted and t.used_at is null and t.expires_at > now();
end;

create function find_identity(wanted_issuer text, wanted_subject text)
returns table (user_id uuid, disabled boolean)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select i.user_id, u.disabled_at is not null
    from identity as i
    join app_user as u on u.id = i.user_id
    where i.issuer = wanted_issuer and i.subject = wanted_subject;
end;

create function find_invitation(token bytea)
returns table (organization_id uuid, id uuid)
language sql stable security definer set search_path = public, pg_temp
begin atomic
    select i.organization_id, i.id from invitation as i where i.token_hash = token;
end;

-- Seconds that this address must wait before it may be tried again: none for five failures, then 2, 4, 8 … 900.
create function sign_in_wait(wanted bytea) returns double precision
language sql stable security definer set search_path = public, pg_temp
return coalesce((select greatest(0, extract(epoch from f.last_at - now())
                                    + least(900, 2 ^ least(f.failures - 5, 20)))
                 from sign_in_failure as f
                 where f.key = wanted and f.failures > 5), 0);

create function note_sign_in(wanted bytea, succeeded boolean) returns void
language sql volatile security definer set search_path = public, pg_temp
begin atomic
    delete from sign_in_failure as f
    where (f.key = wanted and succeeded) or f.last_at < now() - interval '1 day';
    insert into sign_in_failure (key, failures, last_at)
    select wanted, 1, now()
    where not succeeded
    on conflict (key) do update set failures = sign_in_failure.failures + 1, last_at = now();
end;

do $$
declare
    lookup text;
begin
    foreach lookup in array array['find_user(text)', 'are_there_users()', 'find_session(bytea)', 'find_personal_token(text)',
                                  'find_mailed_token(bytea, text)', 'find_identity(text, text)',
                                  'find_invitation(bytea)', 'sign_in_wait(bytea)', 'note_sign_in(bytea, boolean)'] loop
        execute format('revoke all on function %s from public', lookup);
        execute format('grant execute on function %s to freshet_app', lookup);
    end loop;
end
$$;

-- What was done to people and organizations is part of the log of the organization.
alter table audit_event
    add column organization_id uuid references organization (id),
    alter column workspace_id drop not null;
-- The owner is under the policies too, and none lets it see all lines.
alter table audit_event no force row level security;
update audit_event as e set organization_id = w.organization_id
from workspace as w
where w.id = e.workspace_id;
alter table audit_event force row level security;
alter table audit_event alter column organization_id set not null;
create policy of_organization on audit_event
    using (organization_id = (select current_organization()))
    with check (organization_id = (select current_organization()));
create index audit_event_by_organization on audit_event (organization_id, id desc);

-- The word that the first who signs up must know: it is in the log of the first start.
alter table installation add column set_up_hash bytea;
grant update (set_up_hash) on installation to freshet_app;

-- A run that a person asked for in the dashboard.
alter table run
    drop constraint run_trigger_known,
    add constraint run_trigger_known check (trigger in ('api', 'command', 'manual', 'retry'));
