//! The whole tree of commands: everything is explained, every command has an example that parses.

use clap::error::ErrorKind;
use clap::{Command as Tree, CommandFactory as _};

use super::*;

/// Every command of the tree with its full name, groups included.
fn walk(tree: &Tree, name: &str, visit: &mut dyn FnMut(&str, &Tree)) {
    visit(name, tree);
    for command in tree.get_subcommands().filter(|command| command.get_name() != "help") {
        walk(command, &format!("{name} {}", command.get_name()), visit);
    }
}

fn tree() -> Tree {
    let mut tree = Cli::command();
    tree.build();
    tree
}

#[test]
fn the_tree_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_and_flag_is_explained() {
    walk(&tree(), "graft", &mut |name, command| {
        assert!(command.get_about().is_some(), "`{name}` has no help");
        for argument in command.get_arguments() {
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(!help.is_empty(), "`{name}`: {} has no help", argument.get_id());
        }
    });
}

#[test]
fn every_command_has_examples_and_they_parse() {
    walk(&tree(), "graft", &mut |name, command| {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        let help = help.replace("\\\n", " ");
        let examples: Vec<&str> =
            help.lines().map(str::trim).filter(|line| line.starts_with("graft ")).collect();
        assert!(!examples.is_empty(), "`{name}` has no example");
        for example in examples {
            let own = example.starts_with(name);
            assert!(own, "`{name}` shows the example of another command: {example}");
            if let Err(error) = Cli::try_parse_from(words(example)) {
                panic!("{example}: {error}");
            }
        }
    });
}

/// Values that are text or another program's business, and recipes, which are expanded where they are
/// read.
const NO_PATHS: [&str; 14] = [
    "prompt",
    "system",
    "overrides",
    "prefix",
    "name",
    "recipe",
    "help",
    "version",
    "quiet",
    "columns",
    "ignore_columns",
    "turn_fields",
    "roles",
    "train_on",
];

#[test]
fn every_path_behind_a_flag_is_expanded_or_refused_by_name() {
    walk(&tree(), "graft", &mut |name, command| {
        let arguments = command.get_arguments();
        for argument in arguments.filter(|argument| argument.get_action().takes_values()) {
            let id = argument.get_id().as_str();
            if NO_PATHS.contains(&id) {
                continue;
            }
            let mut line: Vec<String> = name.split(' ').map(str::to_owned).collect();
            // Arguments without a name come after those that stand before them.
            let before = argument.get_index().unwrap_or(1) - 1;
            line.extend(std::iter::repeat_n("quickstart".to_owned(), before));
            match argument.get_long() {
                Some(flag) => line.push(format!("--{flag}=~nobody/x")),
                None => line.push("~nobody/x".to_owned()),
            }
            let refused = Cli::try_parse_from(&line).unwrap_err();
            let by_value = [ErrorKind::ValueValidation, ErrorKind::InvalidValue];
            assert!(by_value.contains(&refused.kind()), "{line:?}: {refused}");
        }
    });
}

/// Words of a command line; double quotes hold several together.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in line.split('"').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn flags_of_everywhere_stand_behind_the_command_too() {
    let cli = Cli::try_parse_from(["graft", "recipes", "ls", "--threads", "2", "--quiet"]).unwrap();
    assert_eq!(cli.globals.threads.map(std::num::NonZeroUsize::get), Some(2));
    assert!(cli.globals.quiet);
    assert!(Cli::try_parse_from(["graft", "recipes", "ls", "--threads", "0"]).is_err());
    assert!(Cli::try_parse_from(["graft", "recipes", "ls", "--device", "gpu"]).is_err());
}

#[test]
fn a_number_that_is_none_is_refused_in_words() {
    let mut numbers = 0;
    walk(&tree(), "graft", &mut |name, command| {
        for argument in command.get_arguments() {
            let Some(flag) = argument.get_long().filter(|_| argument.get_action().takes_values())
            else {
                continue;
            };
            for value in ["0", "-1", "x", "1.5", "99999999999999999999"] {
                let line = name.split(' ').map(str::to_owned).chain([format!("--{flag}={value}")]);
                let Err(error) = Cli::try_parse_from(line) else { continue };
                let said = error.to_string();
                for words in
                    ["non-zero type", "invalid digit", "fit in target type", "invalid float"]
                {
                    assert!(!said.contains(words), "`{name} --{flag}={value}`: {said}");
                }
                numbers += usize::from(said.contains("expected a whole number from "));
            }
        }
    });
    assert!(numbers > 40, "only {numbers} values were refused as numbers");
    let zero = Cli::try_parse_from(["graft", "doctor", "--threads", "0"]).unwrap_err();
    insta::assert_snapshot!(zero.to_string().lines().next().unwrap_or_default(), @"error: invalid value '0' for '--threads <N>': expected a whole number from 1 to 18446744073709551615");
}
