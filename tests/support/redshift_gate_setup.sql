-- What Redshift has and PostgreSQL has not, and no more than the tests need.
set allow_system_table_mods = on;

create function pg_catalog.getdate() returns timestamp language sql stable as
  $$ select date_trunc('second', statement_timestamp() at time zone 'UTC') $$;
create function pg_catalog.redshift_sysdate() returns timestamp language sql stable as
  $$ select now() at time zone 'UTC' $$;
create function pg_catalog.redshift_version() returns text language sql immutable as
  $$ select 'PostgreSQL 8.0.2 on i686-pc-linux-gnu, compiled by GCC gcc (GCC) 3.4.2 20041017 (Red Hat 3.4.2-6.fc3), Redshift 1.0.61687'::text $$;
create function pg_catalog.len(text) returns int language sql immutable as
  $$ select length($1) $$;
-- Base 16 alone, up to eight digits.
create function pg_catalog.strtol(text, int) returns bigint language sql immutable as
  $$ select case when $2 = 16 and length($1) <= 8
       then ('x' || lpad($1, 16, '0'))::bit(64)::bigint end $$;
create function pg_catalog.dateadd(unit text, amount int, at timestamp) returns timestamp
  language sql immutable as $$ select at + (amount || ' ' || unit)::interval $$;
create function pg_catalog.datediff(unit text, first timestamp, last timestamp) returns bigint
  language sql immutable as $$ select case unit
    when 'second' then extract(epoch from date_trunc('second', last) - date_trunc('second', first))
    when 'minute' then extract(epoch from date_trunc('minute', last) - date_trunc('minute', first)) / 60
    when 'hour' then extract(epoch from date_trunc('hour', last) - date_trunc('hour', first)) / 3600
    when 'day' then extract(epoch from date_trunc('day', last) - date_trunc('day', first)) / 86400
    end::bigint $$;
create function pg_catalog.convert_timezone(zone text, at timestamp) returns timestamp
  language sql stable as $$ select at at time zone 'UTC' at time zone zone $$;
create function pg_catalog.convert_timezone(source text, target text, at timestamp) returns timestamp
  language sql stable as $$ select at at time zone source at time zone target $$;

create type pg_catalog.super;
create function pg_catalog.super_in(cstring) returns pg_catalog.super
  language internal immutable strict as 'json_in';
create function pg_catalog.super_out(pg_catalog.super) returns cstring
  language internal immutable strict as 'json_out';
create type pg_catalog.super (input = pg_catalog.super_in, output = pg_catalog.super_out, like = text);
create function pg_catalog.json_parse(text) returns pg_catalog.super
  language plpgsql immutable as $$ begin return $1; end $$;
create type pg_catalog.geometry;
create function pg_catalog.geometry_in(cstring) returns pg_catalog.geometry
  language internal immutable strict as 'textin';
create function pg_catalog.geometry_out(pg_catalog.geometry) returns cstring
  language internal immutable strict as 'textout';
create type pg_catalog.geometry (input = pg_catalog.geometry_in, output = pg_catalog.geometry_out, like = text);
create function pg_catalog.st_geomfromewkb(text) returns pg_catalog.geometry
  language plpgsql immutable as $$ begin return upper($1); end $$;
create type pg_catalog.geography;
create function pg_catalog.geography_in(cstring) returns pg_catalog.geography
  language internal immutable strict as 'textin';
create function pg_catalog.geography_out(pg_catalog.geography) returns cstring
  language internal immutable strict as 'textout';
create type pg_catalog.geography (input = pg_catalog.geography_in, output = pg_catalog.geography_out, like = text);
create function pg_catalog.st_geogfromwkb(text) returns pg_catalog.geography
  language plpgsql immutable as $$ begin return upper($1); end $$;
create type pg_catalog.varbyte;
create function pg_catalog.varbyte_in(cstring) returns pg_catalog.varbyte
  language internal immutable strict as 'textin';
create function pg_catalog.varbyte_out(pg_catalog.varbyte) returns cstring
  language internal immutable strict as 'textout';
create type pg_catalog.varbyte (input = pg_catalog.varbyte_in, output = pg_catalog.varbyte_out, like = text);
create function pg_catalog.from_hex(text) returns pg_catalog.varbyte
  language plpgsql immutable as $$ begin return lower($1); end $$;

create view pg_catalog.svv_columns as
  select table_catalog, table_schema, table_name, column_name, ordinal_position, data_type
  from information_schema.columns;
create view pg_catalog.svv_relation_privileges as
  select table_schema as namespace_name, table_name as relation_name, privilege_type,
         lower(grantee) as identity_name,
         case when grantee = 'PUBLIC' then 'public' else 'user' end::text as identity_type,
         is_grantable as admin_option
  from information_schema.table_privileges;
-- Roles are those that cannot log in; each login sees its own.
create view pg_catalog.svv_user_grants as
  select u.oid as user_id, u.rolname::text as user_name, r.oid as role_id,
         r.rolname::text as role_name, m.admin_option
  from pg_catalog.pg_auth_members m join pg_catalog.pg_roles u on u.oid = m.member and u.rolcanlogin
  join pg_catalog.pg_roles r on r.oid = m.roleid
  where u.rolname = current_user;
create view pg_catalog.svv_role_grants as
  select g.oid as role_id, g.rolname::text as role_name, r.oid as granted_role_id,
         r.rolname::text as granted_role_name
  from pg_catalog.pg_auth_members m
  join pg_catalog.pg_roles g on g.oid = m.member and not g.rolcanlogin
  join pg_catalog.pg_roles r on r.oid = m.roleid;
-- What a test says that data shares bring in.
create table pg_catalog.redshift_shared (share_name varchar(128), consumer_database varchar(128),
  object_type varchar(64), object_name varchar(512));
create view pg_catalog.svv_datashare_objects as
  select 'INBOUND'::varchar(8) as share_type, share_name, object_type, object_name,
         '123456789012'::varchar(16) as producer_account,
         '13b8833d-17c6-4f16-8fe4-1a018f5ed00d'::varchar(64) as producer_namespace,
         null::boolean as include_new
  from pg_catalog.redshift_shared;
create view pg_catalog.svv_redshift_databases as
  select datname::varchar(128) as database_name, 'local'::varchar(32) as database_type,
         'Snapshot Isolation'::varchar(128) as database_isolation_level
  from pg_catalog.pg_database where datname = current_database()
  union all
  select distinct consumer_database, 'shared'::varchar(32), 'Snapshot Isolation'::varchar(128)
  from pg_catalog.redshift_shared;
create view pg_catalog.sys_connection_log as
  select usename as user_name, pid as session_id, application_name, backend_start as record_time
  from pg_catalog.pg_stat_activity;

create schema redshift_gate;
-- The gate writes into it what it has seen, when somebody asks.
create table pg_catalog.redshift_query_history (
  user_name text, query_id bigint, query_label char(320), session_id int, database_name text,
  status char(10), start_time timestamptz, elapsed_time bigint, returned_rows bigint,
  returned_bytes bigint, query_text varchar(4000));
create view pg_catalog.sys_query_history as
  select u.usesysid as user_id, h.query_id, h.query_label, h.session_id, h.database_name,
         upper(substring(h.query_text from e'(?:/\\*.*?\\*/ *)?(\\w+)')) as query_type,
         h.status, h.start_time at time zone 'UTC' as start_time,
         (h.start_time + h.elapsed_time * interval '1 microsecond') at time zone 'UTC' as end_time,
         h.elapsed_time, h.returned_rows, h.returned_bytes, h.query_text
  from pg_catalog.redshift_query_history h join pg_catalog.pg_user u on u.usename = h.user_name
  where h.user_name = current_user
     or (select usesuper from pg_catalog.pg_user where usename = current_user);
create view pg_catalog.stl_restarted_sessions as
  select now() at time zone 'UTC' as currenttime, datname as dbname, pid as newpid,
         pid as oldpid, usename as username, client_addr::text as remotehost,
         client_port::text as remoteport, now() at time zone 'UTC' as parkedtime,
         ''::varchar(2000) as session_vars
  from pg_catalog.pg_stat_activity where false;
-- Everybody sees there what concerns them.
grant select on pg_catalog.svv_columns, pg_catalog.svv_relation_privileges,
  pg_catalog.sys_query_history, pg_catalog.stl_restarted_sessions, pg_catalog.svv_user_grants,
  pg_catalog.svv_role_grants, pg_catalog.svv_datashare_objects, pg_catalog.svv_redshift_databases
  to public;

-- A view that is bound late is kept as it was written.
create table pg_catalog.redshift_bound_late (view oid, definition text);
create function redshift_gate.remember_views() returns event_trigger
  language plpgsql security definer as $$
declare
  made record;
begin
  for made in select objid from pg_event_trigger_ddl_commands() loop
    delete from pg_catalog.redshift_bound_late where view = made.objid;
    if current_query() like '%/* with no schema binding */%' then
      insert into pg_catalog.redshift_bound_late values (made.objid,
        replace(current_query(), '/* with no schema binding */', 'with no schema binding'));
    end if;
  end loop;
end $$;
create event trigger remember_views on ddl_command_end
  when tag in ('CREATE VIEW') execute function redshift_gate.remember_views();
create function pg_catalog.redshift_viewdef(view oid) returns text
  language sql stable security definer as $$
  select coalesce((select definition from pg_catalog.redshift_bound_late b where b.view = $1),
                  pg_catalog.pg_get_viewdef($1)) $$;

-- Keys are declared and not kept; the length of a VARCHAR is in bytes.
create function redshift_gate.as_redshift_keeps_it() returns event_trigger language plpgsql as $$
declare
  made record;
  found record;
  changes_type bool := current_query() ~* 'alter[[:space:]]+column';
  is_changed bool := false;
begin
  -- Its own changes call it again.
  if current_setting('redshift_gate.is_at_work', true) = 'yes' then
    return;
  end if;
  perform set_config('redshift_gate.is_at_work', 'yes', true);
  for made in select distinct objid from pg_event_trigger_ddl_commands()
              where classid = 'pg_class'::regclass and object_type in ('table', 'table column')
  loop
    for found in select conname from pg_constraint
                 where conrelid = made.objid and contype in ('p', 'u')
    loop
      execute format('alter table %s drop constraint %I', made.objid::regclass, found.conname);
    end loop;
    for found in select attname, atttypmod - 4 as width,
                        'redshift_bytes_' || attnum || '_' || (atttypmod - 4) as rule,
                        (select conname::text from pg_constraint where conrelid = attrelid
                         and starts_with(conname, 'redshift_bytes_' || attnum || '_')) as former
                 from pg_attribute
                 where attrelid = made.objid and atttypid in (1042, 1043) and atttypmod > 4
                   and attnum > 0 and not attisdropped
    loop
      continue when found.former = found.rule;
      if changes_type and found.former is null then
        raise exception 'ALTER COLUMN TYPE changes the size of a VARCHAR and nothing else'
          using errcode = '0A000';
      end if;
      is_changed := true;
      if found.former is not null then
        execute format('alter table %s drop constraint %I', made.objid::regclass, found.former);
      end if;
      execute format('alter table %s add constraint %I check (octet_length(%I) <= %s)',
        made.objid::regclass, found.rule, found.attname, found.width);
    end loop;
  end loop;
  perform set_config('redshift_gate.is_at_work', 'no', true);
  if changes_type and not is_changed then
    raise exception 'target column size should be different' using errcode = '0A000';
  end if;
end $$;
create event trigger as_redshift_keeps_it on ddl_command_end
  when tag in ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'ALTER TABLE')
  execute function redshift_gate.as_redshift_keeps_it();
