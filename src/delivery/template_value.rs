//! What a template gave, as JSON.

use super::json_value::Json;
use super::page::Kind;
use super::template::Exact;
use super::value::{write_string, write_value};
use minijinja::value::{Value, ValueKind};

/// Appends what an expression gave, as JSON; nothing where it gave nothing.
/// Nothing is followed deeper than the template itself goes: what a cell holds
/// is copied whole.
pub(super) fn write_engine_value(out: &mut Vec<u8>, value: &Value) -> Option<()> {
    if let Some(Exact(digits)) = value.downcast_object_ref() {
        match digits.contains(['e', 'E']) {
            true => out.extend_from_slice(digits.as_bytes()),
            false => write_value(out, Kind::Decimal, digits),
        }
        return Some(());
    }
    if let Some(json) = value.downcast_object_ref::<Json>() {
        write_value(out, Kind::Json, &json.text);
        return Some(());
    }
    match value.kind() {
        ValueKind::Undefined | ValueKind::Invalid => return None,
        ValueKind::None => out.extend_from_slice(b"null"),
        ValueKind::Bool if value.is_true() => out.extend_from_slice(b"true"),
        ValueKind::Bool => out.extend_from_slice(b"false"),
        ValueKind::Number if value.is_integer() => {
            write_value(out, Kind::Integer, &value.to_string());
        }
        ValueKind::Number => write_value(out, Kind::Float, &value.to_string()),
        ValueKind::String => write_string(out, value.as_str()?),
        ValueKind::Seq => write_list(out, value)?,
        ValueKind::Map => write_object(out, value)?,
        _ => write_string(out, &value.to_string()),
    }
    Some(())
}

fn write_list(out: &mut Vec<u8>, list: &Value) -> Option<()> {
    out.push(b'[');
    for (index, item) in list.try_iter().ok()?.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_inner(out, &item);
    }
    out.push(b']');
    Some(())
}

fn write_object(out: &mut Vec<u8>, map: &Value) -> Option<()> {
    out.push(b'{');
    for (index, name) in map.try_iter().ok()?.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, &name.to_string());
        out.push(b':');
        write_inner(out, &map.get_item(&name).ok()?);
    }
    out.push(b'}');
    Some(())
}

/// What is not there is `null` within a list or an object.
fn write_inner(out: &mut Vec<u8>, value: &Value) {
    let before = out.len();
    if write_engine_value(out, value).is_none() {
        out.truncate(before);
        out.extend_from_slice(b"null");
    }
}
