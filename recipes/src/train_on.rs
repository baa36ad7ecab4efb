//! Section `data.train_on`: which turns of chats are targets.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::named::named;
use crate::section::{Section, list};

named! {
    /// Who speaks in a turn.
    pub enum TurnRole {
        /// Instructions for the whole conversation.
        System = "system",
        /// The person.
        User = "user",
        /// The model.
        Assistant = "assistant",
        /// The result of a tool.
        Tool = "tool",
    }
}

named! {
    /// Which turns of the roles that are learnt.
    pub enum TurnChoice {
        /// All.
        All = "all",
        /// The last one of a conversation.
        Last = "last",
    }
}

/// Which turns of chats are targets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainOn {
    /// Whose turns are learnt, at least one's. Default the assistant's.
    pub roles: BTreeSet<TurnRole>,
    /// Which of them. Default all.
    pub turns: TurnChoice,
}

impl Default for TrainOn {
    fn default() -> Self {
        Self { roles: BTreeSet::from([TurnRole::Assistant]), turns: TurnChoice::All }
    }
}

impl TrainOn {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let mut roles = Self::default().roles;
        if let Some(node) = section.get("roles") {
            if list(node).is_some_and(<[_]>::is_empty) {
                let allowed = format!("a list of some of {}", TurnRole::LISTED);
                section.refuse("roles", node, &allowed);
            } else {
                roles = section.choices("roles", TurnRole::ALL).into_iter().collect();
            }
        }
        let turns = section.choice("turns", TurnChoice::All, TurnChoice::ALL);
        section.close();
        Self { roles, turns }
    }

    pub(crate) fn to_value(&self) -> Value {
        let Self { roles, turns } = self;
        let roles: Vec<&str> = roles.iter().map(|role| role.name()).collect();
        json!({"roles": roles, "turns": turns.name()})
    }
}
