//! What a source says of its rows beside their form: columns, names of fields and speakers, which turns are learnt.

use std::collections::BTreeMap;

use graft_data::{Columns, Format, Role, SourceFile};
use graft_recipes::{Problem, Source, TrainOn, TurnChoice, TurnRole};

use super::findings::Findings;
use crate::wrong_use::WrongUse;

/// Files whose rows are as flags say it: `told` are keys of a source and their values in YAML.
///
/// # Errors
/// A key that the form does not have, or a wrong value; all at once, by the names of the flags.
pub fn as_flags_say(
    files: Vec<SourceFile>,
    format: Format,
    told: &[(&str, &str)],
    otherwise: &TrainOn,
) -> Result<Vec<SourceFile>, WrongUse> {
    let keys: Vec<String> = told.iter().map(|(key, value)| format!(", {key}: {value}")).collect();
    let keys = keys.concat();
    let source = format!("data.train=[{{path: builtin:quickstart/train, format: {format}{keys}}}]");
    let flags = |problems: graft_recipes::Problems| {
        let told: Vec<String> = problems.list.iter().map(by_flag).collect();
        WrongUse(told.join("\n"))
    };
    let recipe = graft_recipes::load("quickstart", &[source]).map_err(flags)?;
    let mut findings = Findings::new(&recipe);
    let source = &recipe.data.train[0];
    let columns = columns("data.train.0", source, format, &mut findings);
    findings.finish().map_err(flags)?;
    let train_on = train_on(source.train_on.as_ref().unwrap_or(otherwise));
    let told =
        |file: SourceFile| file.with_columns(columns.clone()).with_train_on(train_on.clone());
    Ok(files.into_iter().map(told).collect())
}

/// A problem with a key of the source, as one with its flag.
fn by_flag(Problem { key, message, hint, .. }: &Problem) -> String {
    let key = key.strip_prefix("data.train.0.").or(key.strip_prefix("data.train.")).unwrap_or(key);
    let (flag, below) = key.split_once('.').map_or((key, ""), |(flag, below)| (flag, below));
    let place = if below.is_empty() { String::new() } else { format!(" {below}:") };
    let hint = hint.as_ref().map(|hint| hint.replace("data.train.0.", ""));
    let hint = hint.map_or(String::new(), |hint| format!("\n  help: {hint}"));
    format!("--{}:{place} {message}{hint}", flag.replace('_', "-"))
}

/// What a source's columns and the turns of its chats are called; a field or role that its form does not
/// have is recorded, and so is a name that is asked for twice.
pub(super) fn columns(
    key: &str,
    row: &Source,
    format: Format,
    findings: &mut Findings<'_>,
) -> Columns {
    let Source { columns: fields, ignore_columns, turn_fields, roles, .. } = row;
    // Rows of every form may say whether they are learnt.
    let known = [format.fields(), &["weight"]].concat();
    let what = format!("field of `format: {format}`");
    check_names(&format!("{key}.columns"), fields, &known, &what, findings);
    let list = format.fields().first().copied().unwrap_or_default();
    let of_turns: BTreeMap<String, String> =
        turn_fields.iter().map(|(field, name)| (field.clone(), format!("{list}.{name}"))).collect();
    for (table, names) in [("columns", fields), ("turn_fields", &of_turns)] {
        for (field, name) in names {
            if ignore_columns.contains(name) {
                let message = format!("found `{name}`, which `ignore_columns` leaves out");
                findings.problem(&format!("{key}.{table}.{field}"), message);
            }
        }
    }
    let allowed = format.turn_fields();
    if allowed.is_empty() {
        for (table, is_asked) in
            [("turn_fields", !turn_fields.is_empty()), ("roles", !roles.is_empty())]
        {
            if is_asked {
                let message = format!(
                    "a row of `format: {format}` is no list of turns; drop it, or use `format: messages` or \
                     `format: sharegpt`"
                );
                findings.problem(&format!("{key}.{table}"), message);
            }
        }
    } else {
        let what = format!("field of the turns of `format: {format}`");
        check_names(&format!("{key}.turn_fields"), turn_fields, allowed, &what, findings);
        check_roles(&format!("{key}.roles"), roles, format, findings);
    }
    Columns {
        fields: fields.clone(),
        ignored: ignore_columns.iter().cloned().collect(),
        turn_fields: turn_fields.clone(),
        roles: roles.clone(),
    }
}

fn check_names(
    key: &str,
    names: &BTreeMap<String, String>,
    known: &[&str],
    what: &str,
    findings: &mut Findings<'_>,
) {
    for (field, name) in names {
        let at = format!("{key}.{field}");
        let twice = names.iter().find(|(other, from)| *other < field && *from == name);
        if !known.contains(&field.as_str()) {
            let message = format!("`{field}` is no {what}; allowed: {}", known.join(", "));
            findings.problem(&at, message);
        } else if let Some((other, _)) = twice {
            findings.problem(&at, format!("found `{name}`, which `{other}` is read from"));
        }
    }
}

fn check_roles(
    key: &str,
    roles: &BTreeMap<String, Vec<String>>,
    format: Format,
    findings: &mut Findings<'_>,
) {
    let known: Vec<&str> = format.roles().collect();
    for (role, words) in roles {
        let at = format!("{key}.{role}");
        if !known.contains(&role.as_str()) {
            let message =
                format!("`{role}` is no role of `format: {format}`; allowed: {}", known.join(", "));
            findings.problem(&at, message);
        }
        for word in words {
            let other = roles.iter().find(|(other, words)| *other < role && words.contains(word));
            if let Some((other, _)) = other {
                findings.problem(&at, format!("found `{word}`, which stands for `{other}`, too"));
            }
        }
    }
}

/// Which turns are learnt, as data has it.
pub(super) fn train_on(TrainOn { roles, turns }: &TrainOn) -> graft_data::TrainOn {
    let role = |role: &TurnRole| match role {
        TurnRole::System => Role::System,
        TurnRole::User => Role::User,
        TurnRole::Assistant => Role::Assistant,
        TurnRole::Tool => Role::Tool,
    };
    let turns = match turns {
        TurnChoice::All => graft_data::Turns::All,
        TurnChoice::Last => graft_data::Turns::Last,
    };
    graft_data::TrainOn { roles: roles.iter().map(role).collect(), turns }
}
