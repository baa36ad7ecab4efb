//! Which columns of a file are the fields of a row: files that call them otherwise are read by a table of names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::forms::{RowForm, is_of_words};
use super::json;
use super::notes::is_note;
use crate::error::RowProblem;
use crate::shown::{shown, some};

/// What a file's columns are called. The default takes them as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Field of the row form to the column that it is read from.
    pub fields: BTreeMap<String, String>,
    /// Columns that are not learnt from, though nothing says that they are notes.
    pub ignored: BTreeSet<String>,
}

impl Columns {
    /// The row with its fields under their own names.
    pub(super) fn fields_of(&self, row: Value) -> Result<Value, RowProblem> {
        let Value::Object(mut row) = row else { return Ok(row) };
        if self.fields.is_empty() && self.ignored.is_empty() {
            return Ok(Value::Object(row));
        }
        row.retain(|column, _| !self.ignored.contains(column));
        let field = |column: &str| {
            self.fields.iter().find(|(_, from)| *from == column).map(|(field, _)| field)
        };
        let mut named = Map::new();
        for (column, value) in row {
            let name = match field(&column) {
                Some(field) => field.clone(),
                None if self.fields.contains_key(&column) => {
                    let (field, from) = (shown(&column), shown(&self.fields[&column]));
                    return Err(RowProblem::Unsupported(format!(
                        "`{field}` is read from `{from}`, but there is a `{field}`, too: nothing would be learnt from \
                         it; leave it out by `ignore_columns: [{field}]`, or read another field from it"
                    )));
                }
                None => column,
            };
            named.insert(name, value);
        }
        Ok(Value::Object(named))
    }

    /// Names of columns that are asked for, and are not among those that were met.
    pub(super) fn unmet(&self, met: &BTreeSet<String>) -> Option<(&'static str, &str)> {
        let missing = |name: &&String| !met.contains(*name);
        let field = self.fields.values().find(missing).map(|name| ("columns", name.as_str()));
        field.or_else(|| {
            self.ignored.iter().find(missing).map(|name| ("ignore_columns", name.as_str()))
        })
    }
}

/// A row whose lists may be written as texts of JSON, and all of whose values where it is `of_texts`.
pub(super) fn unfolded(form: &RowForm, row: Value, of_texts: bool) -> Result<Value, RowProblem> {
    let Value::Object(mut row) = row else { return Ok(row) };
    for (field, value) in &mut row {
        let Value::String(text) = &*value else { continue };
        if form.lists.contains(&field.as_str()) {
            *value = match text.trim() {
                "" if of_texts => Value::Null,
                "" => continue,
                json => json::read(json, is_note).map_err(|problem| {
                    RowProblem::Unsupported(format!(
                        "`{field}` is a text that does not hold JSON: {problem}"
                    ))
                })?,
            };
        } else if of_texts && is_of_words(field) {
            *value = match text.trim().to_ascii_lowercase().as_str() {
                "" => Value::Null,
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                number => number.parse().map_or_else(|_| value.clone(), Value::Number),
            };
        }
    }
    Ok(Value::Object(row))
}

/// What is said where a column is asked for that no row has.
pub(super) fn unmet_problem(key: &str, name: &str, met: &BTreeSet<String>) -> String {
    format!(
        "`{key}` names `{}`, which no row has (found: {})",
        shown(name),
        some(met.iter().map(String::as_str))
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::formats::Format;

    fn columns(fields: &[(&str, &str)], ignored: &[&str]) -> Columns {
        let owned = |(field, column): &(&str, &str)| ((*field).to_owned(), (*column).to_owned());
        let ignored = ignored.iter().map(|name| (*name).to_owned()).collect();
        Columns { fields: fields.iter().map(owned).collect(), ignored }
    }

    #[test]
    fn fields_are_read_from_the_columns_that_are_named() {
        let swapped = columns(&[("prompt", "completion"), ("completion", "prompt")], &["x"]);
        let row = json!({"prompt": "a", "x": 1, "completion": "q", "id": 7});
        let read = swapped.fields_of(row).unwrap();
        assert_eq!(read, json!({"completion": "a", "prompt": "q", "id": 7}));
        let taken = columns(&[("prompt", "question")], &[]);
        let refused = taken.fields_of(json!({"question": "q", "prompt": "p"})).unwrap_err();
        insta::assert_snapshot!(refused, @"`prompt` is read from `question`, but there is a `prompt`, too: nothing would be learnt from it; leave it out by `ignore_columns: [prompt]`, or read another field from it");
        let met = ["id", "prompt"].map(str::to_owned).into();
        assert_eq!(taken.unmet(&met), Some(("columns", "question")));
        assert_eq!(columns(&[], &["id", "uid"]).unmet(&met), Some(("ignore_columns", "uid")));
        insta::assert_snapshot!(unmet_problem("columns", "question", &met), @"`columns` names `question`, which no row has (found: id, prompt)");
    }

    #[test]
    fn lists_that_stand_in_texts_are_read_and_numbers_only_from_tables_of_text() {
        let form = Format::Messages.form();
        let row =
            json!({"messages": "[{\"role\": \"user\"}]", "tools": "", "weight": "1", "id": "2"});
        let read = unfolded(form, row.clone(), true).unwrap();
        let list = json!([{"role": "user"}]);
        assert_eq!(read, json!({"messages": list, "tools": null, "weight": 1, "id": "2"}));
        let read = unfolded(form, row, false).unwrap();
        assert_eq!(read, json!({"messages": list, "tools": "", "weight": "1", "id": "2"}));
        let broken = unfolded(form, json!({"messages": "[{'role': 1}]"}), true).unwrap_err();
        insta::assert_snapshot!(broken, @"`messages` is a text that does not hold JSON: malformed JSON at column 3: key must be a string");
    }
}
