//! Which modules adapter_config.json puts updates on. The tensors say so themselves; but an update on
//! a module that is not chosen is one that PEFT would leave out, so the two are held together.
//!
//! Follows PEFT 0.21.2 (`tuners/tuners_utils.py`, `check_target_module_exists`).

use graft_model::Site;
use serde_json::{Map, Value};

use super::config::{is_unset, shown};
use super::pattern::{Pattern, Unclear};
use crate::lora::TableName;

/// The choice of modules.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    /// `None` where the file leaves the choice to PEFT's table of models, or makes it in a pattern
    /// that is not read here.
    chosen: Option<Names>,
    excluded: Option<Names>,
    layers: Option<Vec<u64>>,
    /// The lists of blocks by name; a Llama has one, `layers`.
    lists: Vec<Pattern>,
    /// Something leaves modules out, in a pattern that is not read here.
    leaves_out_unread: bool,
}

#[derive(Clone, Debug)]
enum Names {
    /// Every projection.
    All,
    /// The whole name.
    Match(Pattern),
    /// Whole names, or what follows a dot.
    Ends(Vec<String>),
}

impl Names {
    fn read(key: &str, value: Option<&Value>, problems: &mut Vec<String>) -> Option<Self> {
        match value? {
            Value::String(text) if text.to_lowercase() == "all-linear" => Some(Self::All),
            Value::String(text) => pattern(key, text, problems).map(Self::Match),
            Value::Array(list) => {
                let names = list.iter().filter_map(Value::as_str).map(str::to_owned);
                Some(Self::Ends(names.collect()))
            }
            _ => None,
        }
    }

    /// Steps of a match.
    fn steps(&self) -> u64 {
        match self {
            Self::All => 1,
            Self::Match(pattern) => pattern.steps(),
            Self::Ends(ends) => ends.len() as u64,
        }
    }

    fn contain(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Match(pattern) => pattern.matches(name),
            Self::Ends(ends) => ends.iter().any(|end| {
                name.strip_suffix(end.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
        }
    }

    /// By its whole name: then no choice of layers applies.
    fn contain_whole(&self, name: &str) -> bool {
        match self {
            Self::All | Self::Match(_) => self.contain(name),
            Self::Ends(ends) => ends.iter().any(|end| end == name),
        }
    }
}

/// A pattern; `None` for one that is not read here, and a problem for one that nobody reads.
fn pattern(key: &str, text: &str, problems: &mut Vec<String>) -> Option<Pattern> {
    const SHOWN: usize = 60;
    match Pattern::parse(text) {
        Ok(pattern) => return Some(pattern),
        Err(Unclear::Unread(_)) => {}
        Err(Unclear::Wrong(part)) => {
            let more = if text.chars().nth(SHOWN).is_some() { "…" } else { "" };
            let text: String = text.chars().take(SHOWN).collect();
            problems.push(format!("`{key}` has the pattern `{text}{more}`, which has {part}"));
        }
    }
    None
}

impl Targets {
    /// Reads the four keys.
    pub(super) fn read(object: &Map<String, Value>, problems: &mut Vec<String>) -> Self {
        let excluded = object.get("exclude_modules").filter(|value| !is_unset(value));
        let layers = match object.get("layers_to_transform").unwrap_or(&Value::Null) {
            value if is_unset(value) => None,
            Value::Array(list) => list.iter().map(Value::as_u64).collect(),
            value => value.as_u64().map(|layer| vec![layer]),
        };
        let value = object.get("layers_to_transform").filter(|value| !is_unset(value));
        if let (Some(value), None) = (value, &layers) {
            let found = shown(value);
            let problem = format!(
                "`layers_to_transform` is {found}, but must be a block's number or a list of them"
            );
            problems.push(problem);
        }
        let lists = match object.get("layers_pattern").unwrap_or(&Value::Null) {
            Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
            value => value.as_str().filter(|text| !text.is_empty()).into_iter().collect::<Vec<_>>(),
        };
        let asked = lists.len();
        let mut read = |list| pattern("layers_pattern", list, problems);
        let lists: Vec<Pattern> = lists.into_iter().filter_map(&mut read).collect();
        let names = Names::read("exclude_modules", excluded, problems);
        Self {
            chosen: Names::read("target_modules", object.get("target_modules"), problems),
            leaves_out_unread: (excluded.is_some() && names.is_none()) || lists.len() < asked,
            excluded: names,
            layers,
            lists,
        }
    }

    /// Steps of a choice.
    pub(super) fn steps(&self) -> u64 {
        let names = self.chosen.iter().chain(&self.excluded).map(Names::steps);
        // A chosen name is asked for whole, too.
        2 * names.chain(self.lists.iter().map(Pattern::steps)).sum::<u64>()
    }

    /// Whether PEFT would put an update here, as far as the file says so in words that are read.
    pub(super) fn surely_choose(&self, site: Site) -> bool {
        self.chosen.is_some() && !self.leaves_out_unread && self.choose(site)
    }

    /// Whether PEFT would put an update on a table, as far as the file says so in words that are read.
    pub(super) fn surely_choose_table(&self, table: TableName) -> bool {
        self.chosen.is_some() && !self.leaves_out_unread && self.choose_table(table)
    }

    /// Whether PEFT would put an update on a table: "every projection" and a choice of layers mean none.
    pub(super) fn choose_table(&self, table: TableName) -> bool {
        let name = table.module_name();
        if self.excluded.as_ref().is_some_and(|names| names.contain(name)) {
            return false;
        }
        match &self.chosen {
            None | Some(Names::All) => false,
            Some(chosen) => {
                chosen.contain_whole(name) || (chosen.contain(name) && self.layers.is_none())
            }
        }
    }

    /// Whether PEFT would put an update here.
    pub(super) fn choose(&self, site: Site) -> bool {
        let name = site.module_name();
        if self.excluded.as_ref().is_some_and(|names| names.contain(&name)) {
            return false;
        }
        let Some(chosen) = &self.chosen else { return true };
        if chosen.contain_whole(&name) {
            return true;
        }
        let counted =
            self.lists.is_empty() || self.lists.iter().any(|l| l.matches_end_of("model.layers"));
        let in_layer = self
            .layers
            .as_ref()
            .is_none_or(|layers| counted && layers.contains(&(site.layer as u64)));
        chosen.contain(&name) && in_layer
    }
}

#[cfg(test)]
mod tests {
    use graft_model::ProjectionKind;
    use serde_json::json;

    use super::*;

    fn chosen(keys: &Value) -> Vec<String> {
        let mut problems = Vec::new();
        let targets = Targets::read(keys.as_object().unwrap(), &mut problems);
        assert_eq!(problems, Vec::<String>::new());
        let all = (0..3).flat_map(|layer| {
            [ProjectionKind::Q, ProjectionKind::Down].map(|kind| Site { layer, kind })
        });
        let short = |site: Site| format!("{}{}", site.layer, &site.kind.name()[..1]);
        all.filter(|&site| targets.choose(site)).map(short).collect()
    }

    #[test]
    fn the_same_modules_are_chosen_as_by_peft() {
        let all = ["0q", "0d", "1q", "1d", "2q", "2d"];
        assert_eq!(chosen(&json!({})), all);
        assert_eq!(chosen(&json!({"target_modules": "all-linear"})), all);
        assert_eq!(chosen(&json!({"target_modules": ["q_proj"]})), ["0q", "1q", "2q"]);
        assert_eq!(
            chosen(&json!({"target_modules": ["proj", "mlp.down_proj"]})),
            ["0d", "1d", "2d"]
        );
        let layers =
            |layers: Value| json!({"target_modules": ["q_proj"], "layers_to_transform": layers});
        assert_eq!(chosen(&layers(json!([0, 2]))), ["0q", "2q"]);
        assert_eq!(chosen(&layers(json!(1))), ["1q"]);
        assert_eq!(chosen(&layers(json!([]))), ["0q", "1q", "2q"]);
        let whole = "model.layers.0.self_attn.q_proj";
        let named = json!({"target_modules": [whole, "down_proj"], "layers_to_transform": [1],
            "layers_pattern": "layers"});
        assert_eq!(chosen(&named), ["0q", "1d"]);
        let other = json!({"target_modules": ["q_proj"], "layers_to_transform": [1],
            "layers_pattern": ["blocks"]});
        assert_eq!(chosen(&other), Vec::<String>::new());
        let pattern = json!({"target_modules": r".*layers\.[01]\..*_proj",
            "exclude_modules": ["down_proj"]});
        assert_eq!(chosen(&pattern), ["0q", "1q"]);
        // Not read, so it is the tensors' word that counts.
        assert_eq!(chosen(&json!({"target_modules": "(?!.*lm_head).*"})), all);
    }

    #[test]
    fn tables_are_chosen_as_by_peft() {
        let chosen = |keys: Value| {
            let targets = Targets::read(keys.as_object().unwrap(), &mut Vec::new());
            TableName::ALL.map(|table| targets.choose_table(table))
        };
        for (keys, expected) in [
            (json!({}), [false, false]),
            (json!({"target_modules": "all-linear"}), [false, false]),
            (json!({"target_modules": ["embed_tokens", "lm_head"]}), [true, true]),
            (json!({"target_modules": ["lm_head"], "layers_to_transform": [0]}), [false, true]),
            (json!({"target_modules": ["embed_tokens"], "layers_to_transform": [0]}), [false; 2]),
            (
                json!({"target_modules": ["model.embed_tokens"], "layers_to_transform": [0]}),
                [true, false],
            ),
            (
                json!({"target_modules": "(model\\.)?embed.*", "exclude_modules": ["lm_head"]}),
                [true, false],
            ),
        ] {
            assert_eq!(chosen(keys.clone()), expected, "{keys}");
        }
    }

    #[test]
    fn patterns_that_nobody_reads_are_refused_by_name() {
        let refused = |key: &str, value: Value| {
            let mut problems = Vec::new();
            Targets::read(json!({key: value}).as_object().unwrap(), &mut problems);
            problems.join("\n")
        };
        let shown = [
            refused("target_modules", json!("(".repeat(5_000))),
            refused("target_modules", json!("(".repeat(500))),
            refused("target_modules", json!(".*_proj)")),
            refused("exclude_modules", json!("*_proj")),
            refused("layers_pattern", json!(["layers", "[a-"])),
            refused("target_modules", json!(["*_proj", "(("])),
        ];
        let begins = "(".repeat(60);
        let expected = [
            &format!(
                "`target_modules` has the pattern `{begins}…`, which has more than 2000 characters: it has 5000"
            ),
            &format!(
                "`target_modules` has the pattern `{begins}…`, which has more than 32 groups inside each other"
            ),
            "`target_modules` has the pattern `.*_proj)`, which has an unmatched `)`",
            "`exclude_modules` has the pattern `*_proj`, which has a `*` that repeats nothing",
            "`layers_pattern` has the pattern `[a-`, which has a `[` without its `]`",
            // Names in a list are no patterns.
            "",
        ];
        assert_eq!(shown, expected);
    }
}
