//! Which columns of a file are the fields of a row, and what the turns of its chats are called: files that
//! call them otherwise are read by a table of names.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::forms::{RowForm, TurnForm, is_empty, is_of_words};
use super::json;
use crate::error::RowProblem;
use crate::shown::{shown, some};

/// What a file's columns are called. The default takes them as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Columns {
    /// Field of the row form to the column that it is read from.
    pub fields: BTreeMap<String, String>,
    /// Columns that are not learnt from, though nothing says that they are notes; `messages.mood` is the
    /// field `mood` of the turns of `messages`.
    pub ignored: BTreeSet<String>,
    /// Field of a turn to the name that it is read from.
    pub turn_fields: BTreeMap<String, String>,
    /// Role to words that stand for it, beside the form's own.
    pub roles: BTreeMap<String, Vec<String>>,
}

impl Columns {
    /// The row with its fields under their own names.
    pub(super) fn fields_of(&self, row: Value) -> Result<Value, RowProblem> {
        let Value::Object(mut row) = row else { return Ok(row) };
        if self.fields.is_empty() && self.ignored.is_empty() {
            return Ok(Value::Object(row));
        }
        row.retain(|column, _| !self.ignored.contains(column));
        named(row, &self.fields, "").map(Value::Object)
    }

    /// The row with its turns in the words of its form; what their fields are called is noted in `met`.
    pub(super) fn turns_of(
        &self,
        form: &RowForm,
        mut row: Value,
        met: &mut BTreeSet<String>,
    ) -> Result<Value, RowProblem> {
        let Some(TurnForm { list, role, words, .. }) = form.turns else { return Ok(row) };
        let before = format!("{list}.");
        let ignored: Vec<&str> =
            self.ignored.iter().filter_map(|name| name.strip_prefix(&before)).collect();
        if ignored.is_empty() && self.turn_fields.is_empty() && self.roles.is_empty() {
            return Ok(row);
        }
        let Some(Value::Array(turns)) = row.get_mut(list) else { return Ok(row) };
        for (index, turn) in turns.iter_mut().enumerate() {
            let Value::Object(fields) = turn else { continue };
            for name in fields.keys() {
                let is_asked_for = ignored.contains(&&**name)
                    || self.turn_fields.values().any(|from| from == name);
                if is_asked_for {
                    met.insert(format!("{before}{name}"));
                }
            }
            fields.retain(|name, _| !ignored.contains(&&**name));
            *fields =
                named(std::mem::take(fields), &self.turn_fields, &format!("{list}[{index}]."))?;
            if let Some(Value::String(word)) = fields.get_mut(role)
                && let Some(role) = self.role_of(word)
                && let Some((_, own)) = words.iter().find(|(name, _)| *name == role)
            {
                (*own).clone_into(word);
            }
        }
        Ok(row)
    }

    fn role_of(&self, word: &str) -> Option<&str> {
        let is_one = |words: &Vec<String>| words.iter().any(|it| it == word);
        self.roles.iter().find(|(_, words)| is_one(words)).map(|(role, _)| &**role)
    }

    /// Names of columns that are asked for, and are not among those that were met.
    pub(super) fn unmet(
        &self,
        form: &RowForm,
        met: &BTreeSet<String>,
    ) -> Option<(&'static str, String)> {
        let missing = |name: &String| !met.contains(name);
        let list = form.turns.map_or("", |turns| turns.list);
        let of_turns = self.turn_fields.values().map(|name| format!("{list}.{name}"));
        let asked = (self.fields.values().map(|name| ("columns", name.clone())))
            .chain(self.ignored.iter().map(|name| ("ignore_columns", name.clone())))
            .chain(of_turns.map(|name| ("turn_fields", name)));
        asked.into_iter().find(|(_, name)| missing(name))
    }
}

/// The fields of an object under their own names; `place` stands before them in messages.
fn named(
    object: Map<String, Value>,
    names: &BTreeMap<String, String>,
    place: &str,
) -> Result<Map<String, Value>, RowProblem> {
    if names.is_empty() {
        return Ok(object);
    }
    let own = |column: &str| names.iter().find(|(_, from)| *from == column).map(|(own, _)| own);
    let mut named = Map::new();
    for (column, value) in object {
        let name = match own(&column) {
            Some(field) => field.clone(),
            // What says nothing loses nothing: tables of structs have all fields in all rows.
            None if names.contains_key(&column) && (value.is_null() || is_empty(&value)) => {
                continue;
            }
            None if names.contains_key(&column) => {
                let (field, from) = (shown(&column), shown(&names[&column]));
                let ignored = format!("{}{field}", without_indexes(place));
                return Err(RowProblem::Unsupported(format!(
                    "`{place}{field}` is read from `{from}`, but there is a `{field}`, too: nothing would be \
                     learnt from it; leave it out by `ignore_columns: [{ignored}]`, or read another field from it"
                )));
            }
            None => column,
        };
        named.insert(name, value);
    }
    Ok(named)
}

/// `messages[3].` as `messages.`.
fn without_indexes(place: &str) -> String {
    place.split_once('[').map_or_else(|| place.to_owned(), |(list, _)| format!("{list}."))
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
                json => json::read(json).map_err(|problem| {
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
        Columns { fields: fields.iter().map(owned).collect(), ignored, ..Columns::default() }
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
        let form = Format::Completion.form();
        assert_eq!(taken.unmet(form, &met), Some(("columns", "question".to_owned())));
        let ignoring = columns(&[], &["id", "uid"]);
        assert_eq!(ignoring.unmet(form, &met), Some(("ignore_columns", "uid".to_owned())));
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
