//! Which turns of a conversation are learnt: those of some roles, all of them or the last, but for those
//! that their row takes out.

use std::collections::BTreeSet;

use crate::conversation::{Conversation, Role};
use crate::error::RowProblem;

/// Which turns are learnt. The default: every turn of the assistant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainOn {
    /// Whose turns are learnt; never empty.
    pub roles: BTreeSet<Role>,
    /// Which of them.
    pub turns: Turns,
}

/// Which turns of the roles that are learnt.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Turns {
    /// All.
    #[default]
    All,
    /// The last one of a conversation.
    Last,
}

impl Default for TrainOn {
    fn default() -> Self {
        Self { roles: BTreeSet::from([Role::Assistant]), turns: Turns::All }
    }
}

impl TrainOn {
    /// Says of each turn whether it is learnt. A row can take turns out, and add none.
    ///
    /// # Errors
    /// No turn is of a role that is learnt, or a row asks for a turn to be learnt that is not.
    pub(crate) fn apply(&self, conversation: &mut Conversation) -> Result<(), RowProblem> {
        let messages = &mut conversation.messages;
        let Some(last) = messages.iter().rposition(|turn| self.roles.contains(&turn.role)) else {
            return Err(RowProblem::NothingToLearn { roles: self.listed() });
        };
        for (index, turn) in messages.iter_mut().enumerate() {
            let is_of_roles = self.roles.contains(&turn.role);
            let is_chosen = is_of_roles && (self.turns == Turns::All || index == last);
            if !is_chosen && turn.mark == Some(true) {
                let number = index + 1;
                return Err(RowProblem::Unsupported(if is_of_roles {
                    format!(
                        "turn {number} asks to be learnt, and is not the last one of {}, which \
                         `data.train_on.turns: last` learns alone; give up one of the two",
                        self.listed()
                    )
                } else {
                    format!(
                        "turn {number} asks to be learnt, and is not {}'s; remove its mark, or add `{}` \
                         to `data.train_on.roles`",
                        self.listed(),
                        turn.role.name()
                    )
                }));
            }
            turn.learnt = is_chosen && turn.mark != Some(false);
        }
        Ok(())
    }

    /// `the user or the assistant`.
    fn listed(&self) -> String {
        let names: Vec<String> =
            self.roles.iter().map(|role| format!("the {}", role.name())).collect();
        names.join(" or ")
    }
}

#[cfg(test)]
mod tests;
