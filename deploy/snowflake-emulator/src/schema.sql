-- The emulator's own tables (schema emulator) and the place of the data (schema snow).
-- Every statement here may be repeated: it runs at each start.
create schema if not exists emulator;
create schema if not exists snow;

create sequence if not exists emulator.row_id;
create sequence if not exists emulator.change_seq;

create table if not exists emulator.account_user (
  name text primary key,
  default_role text not null default 'ACCOUNTADMIN',
  default_warehouse text default 'COMPUTE_WH',
  default_database text,
  default_schema text,
  public_key_1 text,
  public_key_2 text
);

create table if not exists emulator.access_token (
  token_hash text primary key,
  user_name text not null,
  kind text not null,                -- programmatic | access | refresh
  expires_ms bigint not null,
  used boolean not null default false,
  family text not null default ''
);

create table if not exists emulator.oauth_client (
  client_id text primary key,
  client_secret text not null,
  redirect_uri text not null,
  single_use_refresh boolean not null default false
);

create table if not exists emulator.warehouse (
  name text primary key,
  size text not null default 'X-Small',
  auto_suspend_s bigint not null default 60,
  created_ms bigint not null
);
insert into emulator.warehouse (name, created_ms)
values ('COMPUTE_WH', 0)
on conflict do nothing;

create table if not exists emulator.database (
  name text primary key,
  created_ms bigint not null,
  comment text not null default ''
);

create table if not exists emulator.schema (
  database text not null references emulator.database on delete cascade,
  name text not null,
  created_ms bigint not null,
  comment text not null default '',
  primary key (database, name)
);

create table if not exists emulator.object (
  id bigint generated always as identity primary key,
  kind text not null,                -- TABLE | VIEW | STREAM | TASK
  database text not null,
  schema text not null,
  name text not null,
  created_ms bigint not null,
  comment text not null default '',
  transient boolean not null default false,
  session uuid,                      -- a temporary table belongs to one session
  tracked boolean not null default false,
  retention_days bigint not null default 1,
  definition text not null default '',
  foreign key (database, schema) references emulator.schema on delete cascade
);
-- Tables, views and streams share one name space; a temporary table may hide a permanent one.
create unique index if not exists object_one_per_name
on emulator.object (database, schema, name, (kind = 'TASK'), coalesce(session, '00000000-0000-0000-0000-000000000000'));

create table if not exists emulator.column (
  object_id bigint not null references emulator.object on delete cascade,
  ordinal int not null,
  name text not null,
  type jsonb not null,
  nullable boolean not null,
  default_sql text,
  comment text,
  key_position int,
  primary key (object_id, ordinal)
);

create table if not exists emulator.stream (
  object_id bigint primary key references emulator.object on delete cascade,
  source_id bigint not null,         -- no reference: a stream outlives its source and is then stale
  source_name text not null,
  mode text not null,                -- DEFAULT | APPEND_ONLY
  seen pg_snapshot not null,         -- the offset: what the last consumption had seen
  seen_ns numeric not null,          -- when, nanoseconds since the epoch
  initial boolean not null,          -- the first consumption returns the rows that existed
  stale boolean not null default false
);

-- What was visible when: lets a time be turned into a snapshot (CHANGES … AT).
create table if not exists emulator.moment (
  at_ns numeric not null,
  seen pg_snapshot not null
);
create index if not exists moment_at on emulator.moment (at_ns);

do $$ begin
  create type emulator.tstz as (utc numeric, minutes int);
exception when duplicate_object then null; end $$;

-- '2024-06-05 12:30:00.123456789' to seconds since the epoch, as if UTC; any offset is ignored.
create or replace function emulator.wall(t text) returns numeric language plpgsql immutable strict as $$
declare m text[];
begin
  m := regexp_match(trim(t), '^(\d{1,4}-\d{1,2}-\d{1,2})(?:[T ]+(\d{1,2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?)?\s*(Z|[+-]\d{2}:?\d{2})?$');
  if m is null then
    raise exception using errcode = '22007', message = format('Timestamp ''%s'' is not recognized', t);
  end if;
  return (extract(epoch from (lpad(split_part(m[1],'-',1),4,'0') || substr(m[1], strpos(m[1],'-')) || ' ' || coalesce(m[2], '00:00'))::timestamp)::bigint
    + coalesce(('0.' || m[3])::numeric, 0))::numeric(21,9);
end $$;

-- The offset written in a timestamp, in minutes; null when there is none.
create or replace function emulator.written_offset(t text) returns int language plpgsql immutable strict as $$
declare m text[];
begin
  if trim(t) ~ 'Z$' then return 0; end if;
  m := regexp_match(trim(t), ':\d{2}(?:\.\d+)?\s*([+-])(\d{2}):?(\d{2})$');
  if m is null then return null; end if;
  return (m[2]::int * 60 + m[3]::int) * case m[1] when '-' then -1 else 1 end;
end $$;

-- Offset of a zone, in minutes, at a wall clock time.
create or replace function emulator.zone_offset(wall numeric, zone text) returns int language sql stable strict as $$
  select (extract(epoch from (timestamp '1970-01-01' + make_interval(secs => floor(wall)::float8)))
    - extract(epoch from ((timestamp '1970-01-01' + make_interval(secs => floor(wall)::float8)) at time zone zone)))::int / 60
$$;

-- Offset of a zone, in minutes, at an instant.
create or replace function emulator.zone_offset_at(utc numeric, zone text) returns int language sql stable strict as $$
  select (extract(epoch from (to_timestamp(floor(utc)::float8) at time zone zone)) - floor(utc))::int / 60
$$;

create or replace function emulator.to_ntz(t text) returns numeric language sql immutable strict as $$
  select case when t ~ '^-?\d+(\.\d+)?$' then t::numeric(21,9) else emulator.wall(t) end
$$;

create or replace function emulator.to_tz(t text, zone text) returns emulator.tstz language sql stable strict as $$
  select row(w - o * 60, o)::emulator.tstz
  from (select emulator.to_ntz(t) as w) a,
    lateral (select coalesce(emulator.written_offset(t), emulator.zone_offset(w, zone)) as o) b
$$;

create or replace function emulator.to_ltz(t text, zone text) returns numeric language sql stable strict as $$
  select (emulator.to_tz(t, zone)).utc
$$;

create or replace function emulator.ts_text(wall numeric, fraction_digits int) returns text language sql immutable strict as $$
  select to_char(timestamp '1970-01-01' + make_interval(days => (floor(wall / 86400))::int, secs => (floor(wall) - floor(wall / 86400) * 86400)::float8), 'YYYY-MM-DD HH24:MI:SS')
    || case when fraction_digits > 0 then '.' || substr(lpad(((wall - floor(wall)) * 1000000000)::bigint::text, 9, '0'), 1, fraction_digits) else '' end
$$;

create or replace function emulator.offset_text(minutes int) returns text language sql immutable strict as $$
  select case when minutes < 0 then '-' else '+' end || lpad((abs(minutes) / 60)::text, 2, '0') || lpad((abs(minutes) % 60)::text, 2, '0')
$$;

-- '12:30:00.5' to seconds since midnight.
create or replace function emulator.to_time(t text) returns numeric language plpgsql immutable strict as $$
declare m text[];
begin
  m := regexp_match(trim(t), '^(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,9}))?)?$');
  if m is null then
    raise exception using errcode = '22007', message = format('Time ''%s'' is not recognized', t);
  end if;
  return (m[1]::int * 3600 + m[2]::int * 60 + coalesce(m[3]::int, 0) + coalesce(('0.' || m[4])::numeric, 0))::numeric(14,9);
end $$;

create or replace function emulator.to_number(t text) returns numeric language plpgsql immutable strict as $$
begin
  if trim(t) !~ '^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$' then
    raise exception using errcode = '22P02', message = format('Numeric value ''%s'' is not recognized', t);
  end if;
  return trim(t)::numeric;
end $$;

create or replace function emulator.try_number(t text) returns numeric language sql immutable strict as $$
  select case when trim(t) ~ '^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$' then trim(t)::numeric end
$$;

create or replace function emulator.to_float(t text) returns float8 language sql immutable strict as $$
  select case lower(trim(t)) when 'inf' then 'Infinity'::float8 when '-inf' then '-Infinity'::float8 when 'nan' then 'NaN'::float8
    else emulator.to_number(t)::float8 end
$$;

create or replace function emulator.to_boolean(t text) returns boolean language plpgsql immutable strict as $$
begin
  if lower(trim(t)) in ('true','t','yes','y','on','1') then return true; end if;
  if lower(trim(t)) in ('false','f','no','n','off','0') then return false; end if;
  raise exception using errcode = '22P02', message = format('Boolean value ''%s'' is not recognized', t);
end $$;

create or replace function emulator.float_text(f float8) returns text language sql immutable strict as $$
  select case f when 'NaN' then 'NaN' when 'Infinity' then 'inf' when '-Infinity' then '-inf' else f::text end
$$;

-- A hash of 64 bits, signed: the first eight bytes of an md5.
create or replace function emulator.hash(t text) returns numeric language sql immutable as $$
  select ('x' || substr(md5(coalesce(t, chr(1) || 'null')), 1, 16))::bit(64)::bigint::numeric
$$;

create or replace function emulator.row_id(object_id bigint, rid text) returns text language sql immutable strict as $$
  select substr(encode(sha256(convert_to(object_id::text || ':' || rid, 'UTF8')), 'hex'), 1, 40)
$$;

create or replace function emulator.fit(t text, size bigint) returns text language plpgsql immutable strict as $$
begin
  if length(t) > size then
    raise exception using errcode = '22001', message = format('String ''%s'' is too long and would be truncated', t);
  end if;
  return t;
end $$;

create or replace function emulator.as_kind(j jsonb, kind text) returns jsonb language sql immutable strict as $$
  select case when jsonb_typeof(j) = kind then j end
$$;

create or replace function emulator.ntz_to_tz(wall numeric, zone text) returns emulator.tstz language sql stable strict as $$
  select row(wall - o * 60, o)::emulator.tstz from (select emulator.zone_offset(wall, zone) as o) z
$$;

create or replace function emulator.parse_json(t text) returns jsonb language plpgsql immutable strict as $$
begin
  if trim(t) = '' then return null; end if;
  return t::jsonb;
exception when others then
  raise exception using errcode = '22P02', message = format('Error parsing JSON: %s', left(t, 100));
end $$;

create or replace function emulator.try_parse_json(t text) returns jsonb language plpgsql immutable strict as $$
begin
  return nullif(trim(t), '')::jsonb;
exception when others then return null;
end $$;

create or replace function emulator.array_size(j jsonb) returns numeric language sql immutable strict as $$
  select case when jsonb_typeof(j) = 'array' then jsonb_array_length(j)::numeric end
$$;

create or replace function emulator.type_of(j jsonb) returns text language sql immutable strict as $$
  select case jsonb_typeof(j)
    when 'number' then case when j::text ~ '[.eE]' then 'DECIMAL' else 'INTEGER' end
    when 'string' then 'VARCHAR' when 'null' then 'NULL_VALUE' else upper(jsonb_typeof(j)) end
$$;

-- jsonb's text without the blanks after ':' and ',' outside of strings.
create or replace function emulator.compact(t text) returns text language plpgsql immutable strict as $$
declare parts text[]; made text := ''; m text;
begin
  for m in select x[1] from regexp_matches(t, '("(?:[^"\\]|\\.)*"|[^"]+)', 'g') x loop
    made := made || case when left(m, 1) = '"' then m else replace(m, ' ', '') end;
  end loop;
  return made;
end $$;

-- What was visible at a time: nothing before the first moment.
create or replace function emulator.seen_at(at numeric) returns pg_snapshot language sql stable strict as $$
  select coalesce(
    (select m.seen from emulator.moment m where m.at_ns <= at order by m.at_ns desc limit 1),
    '1:1:'::pg_snapshot)
$$;

create or replace function emulator.row_count(id bigint) returns bigint language plpgsql stable as $$
declare n bigint;
begin
  execute format('select count(*) from snow.t%s', id) into n;
  return n;
end $$;

create or replace function emulator.byte_count(id bigint) returns bigint language sql stable as $$
  select pg_table_size(format('snow.t%s', id)::regclass)
$$;

-- INFORMATION_SCHEMA's name of a type as it is kept in emulator.column.
create or replace function emulator.type_name(kept jsonb) returns text language sql immutable strict as $$
  select case
    when kept ? 'Fixed' then 'NUMBER' when kept ? 'Text' then 'TEXT' when kept ? 'Binary' then 'BINARY'
    else case kept #>> '{}' when 'Real' then 'FLOAT' when 'TimestampNtz' then 'TIMESTAMP_NTZ' when 'TimestampLtz' then 'TIMESTAMP_LTZ'
      when 'TimestampTz' then 'TIMESTAMP_TZ' else upper(kept #>> '{}') end end
$$;

-- Counts what a MERGE does to rows; hands the row id through.
create or replace function emulator.tally(what text, rid bigint) returns bigint language plpgsql volatile as $$
begin
  perform set_config('emulator.' || what, (current_setting('emulator.' || what)::bigint + 1)::text, true);
  return rid;
end $$;

-- DESCRIBE's name of a type as it is kept in emulator.column.
create or replace function emulator.sql_type(kept jsonb) returns text language sql immutable strict as $$
  select case
    when kept ? 'Fixed' then format('NUMBER(%s,%s)', kept -> 'Fixed' ->> 'precision', kept -> 'Fixed' ->> 'scale')
    when kept ? 'Text' then format('VARCHAR(%s)', kept -> 'Text' ->> 'length')
    when kept ? 'Binary' then format('BINARY(%s)', kept -> 'Binary' ->> 'length')
    else emulator.type_name(kept) || case when kept #>> '{}' like 'Time%' then '(9)' else '' end end
$$;

-- SHOW COLUMNS' description of a type: JSON text.
create or replace function emulator.show_type(kept jsonb, nullable boolean) returns text language sql immutable strict as $$
  select case
    when kept ? 'Fixed' then format('{"type":"FIXED","precision":%s,"scale":%s,"nullable":%s}', kept -> 'Fixed' ->> 'precision', kept -> 'Fixed' ->> 'scale', nullable::text)
    when kept ? 'Text' then format('{"type":"TEXT","length":%1$s,"byteLength":%2$s,"nullable":%3$s,"fixed":false}', kept -> 'Text' ->> 'length', least((kept -> 'Text' ->> 'length')::bigint * 4, 16777216), nullable::text)
    when kept ? 'Binary' then format('{"type":"BINARY","length":%1$s,"byteLength":%1$s,"nullable":%2$s,"fixed":true}', kept -> 'Binary' ->> 'length', nullable::text)
    when kept #>> '{}' like 'Time%' then format('{"type":"%s","precision":0,"scale":9,"nullable":%s}', emulator.type_name(kept), nullable::text)
    else format('{"type":"%s","nullable":%s}', replace(emulator.type_name(kept), 'FLOAT', 'REAL'), nullable::text) end
$$;

-- A sum of hashes as a signed number of 64 bits.
create or replace function emulator.signed64(n numeric) returns numeric language sql immutable strict as $$
  select case when m > 9223372036854775807 then m - 18446744073709551616 else m end
  from (select mod(mod(n, 18446744073709551616) + 18446744073709551616, 18446744073709551616) as m) x
$$;
