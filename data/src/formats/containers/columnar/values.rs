//! Columns of Arrow as values of JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Date64Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, OffsetSizeTrait, RecordBatch, StructArray,
    downcast_dictionary_array,
};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use serde_json::{Map, Number, Value};

use crate::shown::shown;

/// The most columns, fields of structs included.
const MOST_FIELDS: usize = 4_096;
/// The most levels of lists and structs.
const MOST_LEVELS: usize = 32;

/// Refuses columns that cannot be values.
pub(super) fn check(schema: &Schema) -> Result<(), String> {
    let mut count = 0;
    check_names(schema.fields(), "column")?;
    for field in schema.fields() {
        check_field(field, &shown(field.name()), 1, &mut count)?;
    }
    Ok(())
}

/// Refuses names that stand twice, as a key of JSON may not.
fn check_names(fields: &Fields, what: &str) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    match fields.iter().find(|field| !seen.insert(field.name())) {
        Some(field) => Err(format!("{what} `{}` stands twice", shown(field.name()))),
        None => Ok(()),
    }
}

fn check_field(field: &Field, path: &str, level: usize, count: &mut usize) -> Result<(), String> {
    *count += 1;
    if *count > MOST_FIELDS {
        return Err(format!("it has more than {MOST_FIELDS} columns"));
    }
    if level > MOST_LEVELS {
        return Err(format!("column `{path}` is nested more than {MOST_LEVELS} levels deep"));
    }
    let mut check = |inner: &Field| {
        let path = match field.data_type() {
            DataType::Struct(_) => format!("{path}.{}", shown(inner.name())),
            _ => format!("{path}[]"),
        };
        check_field(inner, &path, level + 1, count)
    };
    match field.data_type() {
        DataType::Struct(fields) => {
            check_names(fields, "field")?;
            fields.iter().try_for_each(|inner| check(inner))
        }
        DataType::List(inner)
        | DataType::LargeList(inner)
        | DataType::FixedSizeList(inner, _)
        | DataType::Map(inner, _) => check(inner),
        DataType::Dictionary(_, kind) => {
            check(&Field::new(field.name(), kind.as_ref().clone(), true))
        }
        kind if is_plain(kind) => Ok(()),
        kind => Err(format!(
            "column `{path}` holds {}, which no row has a use for: leave it out by `ignore_columns: [{}]`, or \
             write the file without it",
            shown(&kind.to_string()),
            path.split(['.', '[']).next().unwrap_or_default()
        )),
    }
}

fn is_plain(kind: &DataType) -> bool {
    kind.is_integer()
        || kind.is_floating()
        || matches!(
            kind,
            DataType::Null
                | DataType::Boolean
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Date32
                | DataType::Date64
                | DataType::Timestamp(..)
        )
}

/// The same columns, of which the texts in lists are read as dictionaries.
pub(super) fn with_dictionaries(schema: &Schema) -> Schema {
    let fields: Fields = schema.fields().iter().map(|field| kept_once(field, false)).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn kept_once(field: &FieldRef, is_in_list: bool) -> FieldRef {
    let kept = |inner: &FieldRef| kept_once(inner, true);
    let kind = match field.data_type() {
        DataType::Utf8 if is_in_list => {
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
        }
        DataType::List(inner) => DataType::List(kept(inner)),
        DataType::LargeList(inner) => DataType::LargeList(kept(inner)),
        DataType::FixedSizeList(inner, length) => DataType::FixedSizeList(kept(inner), *length),
        DataType::Map(inner, is_sorted) => DataType::Map(kept(inner), *is_sorted),
        DataType::Struct(fields) => {
            DataType::Struct(fields.iter().map(|inner| kept_once(inner, is_in_list)).collect())
        }
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(kind))
}

/// The rows of a batch whose schema was checked.
pub(super) fn rows(batch: &RecordBatch) -> Result<Vec<Map<String, Value>>, String> {
    let mut rows = vec![Map::new(); batch.num_rows()];
    let schema = batch.schema();
    for (field, column) in schema.fields().iter().zip(batch.columns()) {
        for (row, value) in rows.iter_mut().zip(values(column)?) {
            if row.insert(field.name().clone(), value).is_some() {
                return Err(format!("column `{}` stands twice", shown(field.name())));
            }
        }
    }
    Ok(rows)
}

/// About how many bytes a value is as text.
pub(super) fn bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => list.iter().map(bytes).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len() + bytes(value)).sum(),
        _ => 1,
    }
}

fn values(array: &ArrayRef) -> Result<Vec<Value>, String> {
    let array = array.as_ref();
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => array.as_boolean().iter().map(or_null(Value::Bool)).collect(),
        DataType::Int8 => numbers::<Int8Type>(array, Value::from),
        DataType::Int16 => numbers::<Int16Type>(array, Value::from),
        DataType::Int32 => numbers::<Int32Type>(array, Value::from),
        DataType::Int64 => numbers::<Int64Type>(array, Value::from),
        DataType::UInt8 => numbers::<UInt8Type>(array, Value::from),
        DataType::UInt16 => numbers::<UInt16Type>(array, Value::from),
        DataType::UInt32 => numbers::<UInt32Type>(array, Value::from),
        DataType::UInt64 => numbers::<UInt64Type>(array, Value::from),
        DataType::Float16 => numbers::<Float16Type>(array, |value| shortest(value.to_f32())),
        DataType::Float32 => numbers::<Float32Type>(array, shortest),
        DataType::Float64 => numbers::<Float64Type>(array, float),
        DataType::Date32 => numbers::<Date32Type>(array, Value::from),
        DataType::Date64 => numbers::<Date64Type>(array, Value::from),
        DataType::Timestamp(TimeUnit::Second, _) => {
            numbers::<TimestampSecondType>(array, Value::from)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            numbers::<TimestampMillisecondType>(array, Value::from)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            numbers::<TimestampMicrosecondType>(array, Value::from)
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            numbers::<TimestampNanosecondType>(array, Value::from)
        }
        DataType::Utf8 => array.as_string::<i32>().iter().map(or_null(Value::from)).collect(),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().map(or_null(Value::from)).collect(),
        DataType::Utf8View => array.as_string_view().iter().map(or_null(Value::from)).collect(),
        DataType::List(_) => lists::<i32>(array)?,
        DataType::LargeList(_) => lists::<i64>(array)?,
        DataType::FixedSizeList(..) => {
            array.as_fixed_size_list().iter().map(list).collect::<Result<_, _>>()?
        }
        DataType::Struct(_) => objects(array.as_struct())?,
        DataType::Map(..) => array
            .as_map()
            .iter()
            .map(|entries| entries.map_or(Ok(Value::Null), |entries| map(&entries)))
            .collect::<Result<_, _>>()?,
        DataType::Dictionary(..) => looked_up(array)?,
        other => return Err(format!("{other} in a column")),
    })
}

fn or_null<T>(value: impl Fn(T) -> Value) -> impl Fn(Option<T>) -> Value {
    move |found| found.map_or(Value::Null, &value)
}

fn numbers<T: ArrowPrimitiveType>(
    array: &dyn Array,
    value: impl Fn(T::Native) -> Value,
) -> Vec<Value> {
    array.as_primitive::<T>().iter().map(or_null(value)).collect()
}

/// What is no number is what pandas writes where there is none.
fn float(value: f64) -> Value {
    Number::from_f64(value).map_or(Value::Null, Value::Number)
}

/// The number that a narrower one was written as.
fn shortest(value: f32) -> Value {
    float(value.to_string().parse().unwrap_or(f64::NAN))
}

fn lists<O: OffsetSizeTrait>(array: &dyn Array) -> Result<Vec<Value>, String> {
    array.as_list::<O>().iter().map(list).collect()
}

fn list(items: Option<ArrayRef>) -> Result<Value, String> {
    items.map_or(Ok(Value::Null), |items| values(&items).map(Value::Array))
}

fn objects(array: &StructArray) -> Result<Vec<Value>, String> {
    let mut objects = vec![Map::new(); array.len()];
    for (field, column) in array.fields().iter().zip(array.columns()) {
        for (object, value) in objects.iter_mut().zip(values(column)?) {
            if !value.is_null() && object.insert(field.name().clone(), value).is_some() {
                return Err(format!("field `{}` stands twice", shown(field.name())));
            }
        }
    }
    let object =
        |(index, object)| if array.is_null(index) { Value::Null } else { Value::Object(object) };
    Ok(objects.into_iter().enumerate().map(object).collect())
}

fn map(entries: &StructArray) -> Result<Value, String> {
    let [keys, items] = entries.columns() else {
        return Err("a map without keys and values".to_owned());
    };
    let mut object = Map::new();
    for (key, item) in values(keys)?.into_iter().zip(values(items)?) {
        let key = match key {
            Value::String(key) => key,
            other => other.to_string(),
        };
        if object.insert(key.clone(), item).is_some() {
            return Err(format!("key `{}` of a map stands twice", shown(&key)));
        }
    }
    Ok(Value::Object(object))
}

/// The values of a dictionary, once for each key that stands in a row.
fn looked_up(array: &dyn Array) -> Result<Vec<Value>, String> {
    downcast_dictionary_array!(
        array => {
            if let Some(texts) = array.values().as_string_opt::<i32>() {
                let text = |key: usize| Some(texts.value(key)).filter(|_| texts.is_valid(key));
                let keys = array.keys_iter().map(|key| key.filter(|&key| key < texts.len()));
                return Ok(keys.map(|key| key.and_then(text).map_or(Value::Null, Value::from)).collect());
            }
            let mut known: BTreeMap<usize, Value> = BTreeMap::new();
            let mut out = Vec::with_capacity(array.len());
            for key in array.keys_iter() {
                let Some(key) = key.filter(|&key| key < array.values().len()) else {
                    out.push(Value::Null);
                    continue;
                };
                if let Some(value) = known.get(&key) {
                    out.push(value.clone());
                    continue;
                }
                let value = values(&array.values().slice(key, 1))?.pop().unwrap_or(Value::Null);
                known.insert(key, value.clone());
                out.push(value);
            }
            Ok(out)
        }
        other => Err(format!("{other} in a column")),
    )
}

/// Bytes of all texts of a batch, as its rows would have them.
pub(super) fn bytes_of_texts(batch: &RecordBatch) -> u64 {
    batch.columns().iter().map(texts).sum()
}

fn texts(array: &ArrayRef) -> u64 {
    let array = array.as_ref();
    let sum = |items: &mut dyn Iterator<Item = Option<ArrayRef>>| -> u64 {
        items.flatten().map(|items| texts(&items)).sum()
    };
    let of_columns = |columns: &[ArrayRef]| columns.iter().map(texts).sum();
    match array.data_type() {
        DataType::Utf8 => lengths(array.as_string::<i32>().iter()),
        DataType::LargeUtf8 => lengths(array.as_string::<i64>().iter()),
        DataType::Utf8View => lengths(array.as_string_view().iter()),
        DataType::List(_) => sum(&mut array.as_list::<i32>().iter()),
        DataType::LargeList(_) => sum(&mut array.as_list::<i64>().iter()),
        DataType::FixedSizeList(..) => sum(&mut array.as_fixed_size_list().iter()),
        DataType::Struct(_) => of_columns(array.as_struct().columns()),
        DataType::Map(..) => {
            array.as_map().iter().flatten().map(|entries| of_columns(entries.columns())).sum()
        }
        DataType::Dictionary(..) => downcast_dictionary_array!(
            array => {
                if let Some(texts) = array.values().as_string_opt::<i32>() {
                    let keys = array.keys_iter().flatten().filter(|&key| key < texts.len());
                    return keys.map(|key| texts.value(key).len() as u64).sum();
                }
                let mut known: BTreeMap<usize, u64> = BTreeMap::new();
                let keys = array.keys_iter().flatten().filter(|&key| key < array.values().len());
                keys.map(|key| {
                    *known.entry(key).or_insert_with(|| texts(&array.values().slice(key, 1)))
                })
                .fold(0, u64::saturating_add)
            }
            _other => 0,
        ),
        _ => array.len() as u64,
    }
}

fn lengths<'a>(texts: impl Iterator<Item = Option<&'a str>>) -> u64 {
    texts.flatten().map(|text| text.len() as u64).sum()
}
