//! What there is and is not at Redshift, by name; words apart by blanks.
//! From the vendor's lists of unsupported data types, functions and features.

/// Whether `word` is in `list`.
pub fn has(list: &str, word: &str) -> bool {
    !word.is_empty() && list.split_whitespace().any(|other| other == word)
}

/// Types there are none of. [D c_unsupported-postgresql-datatypes]
pub const TYPES: &str = "bytea uuid json jsonb xml inet cidr macaddr money bit varbit tsvector tsquery serial \
    bigserial smallserial int4range int8range numrange tsrange tstzrange daterange regtype \
    citext";

/// Functions there are none of. [D c_unsupported-postgresql-functions]
pub const FUNCTIONS: &str = "array_agg string_agg format quote_nullable regexp_matches regexp_match \
    regexp_split_to_array regexp_split_to_table clock_timestamp statement_timestamp \
    transaction_timestamp pg_sleep pg_sleep_for unnest string_to_array to_json to_jsonb \
    row_to_json json_agg json_build_object jsonb_agg jsonb_build_object gen_random_uuid \
    make_date make_timestamp make_interval date_bin num_nulls num_nonnulls to_regclass \
    to_regtype encode digest txid_current txid_current_snapshot txid_snapshot_xmin \
    set_config pg_notify";

/// Functions of the leader node, which sees no table of a user's.
pub const LEADER_ONLY: &str = "generate_series current_schema current_schemas has_table_privilege has_schema_privilege \
    has_database_privilege pg_backend_pid pg_table_is_visible pg_get_userbyid pg_get_viewdef \
    obj_description age format_type pg_cancel_backend pg_terminate_backend";

/// Catalog relations there are none of.
pub const RELATIONS: &str = "pg_enum pg_range pg_stat_activity pg_matviews pg_sequences pg_extension pg_event_trigger \
    pg_collation";

/// Settings there are, besides those with a dot in their name.
pub const SETTINGS: &str = "query_group statement_timeout search_path timezone datestyle extra_float_digits \
    application_name client_encoding wlm_query_slot_count enable_result_cache_for_session \
    enable_case_sensitive_identifier session local describe_field_name_in_uppercase \
    autocommit intervalstyle analyze_threshold_percent json_serialization_enable transaction";

/// Words that are plain names in PostgreSQL and not here. [D r_pg_keywords]
pub const RESERVED: &str = "aes128 aes256 allowoverwrite az64 backup blanksasnull bytedict bzip2 credentials deflate \
    defrag delta delta32k disable emptyasnull enable encode encrypt encryption explicit \
    globaldict256 globaldict64k gzip identity ignore lun luns lzo lzop minus mostly16 \
    mostly32 mostly8 offline open parallel partition percent permissions raw readratio \
    recover rejectlog resort respect restore snapshot system tag tdes text255 text32k top \
    truncatecolumns wallet without";

/// What begins a statement that there is none of; separated by commas.
pub const COMMANDS: &str = "savepoint, release, rollback to, rollback work to, listen, unlisten, notify, discard, \
    do, reindex, cluster, checkpoint, load, security, refresh materialized view \
    concurrently, deallocate all, set constraints, create index, create unique index, create \
    sequence, create trigger, create domain, create type, create extension, create rule, \
    create tablespace, create event, create aggregate, create operator, create unlogged, \
    create recursive, drop index, drop sequence, drop trigger, drop type, explain (, explain \
    analyze, prepare transaction";
