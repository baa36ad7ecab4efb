//! Values that clap reads by the names recipes give them, so that flags and YAML never drift apart.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use graft_data::{Format, Overlong};

/// Reads one of `all`, by name.
pub(super) fn named<T: Copy + Send + Sync + 'static>(
    all: &'static [(&'static str, T)],
) -> impl TypedValueParser<Value = T> {
    let find = move |name: String| {
        let found = all.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| *value).ok_or("clap lets no other name pass")
    };
    PossibleValuesParser::new(all.iter().map(|(name, _)| *name)).try_map(find)
}

pub(super) fn format() -> impl TypedValueParser<Value = Format> {
    let parser = PossibleValuesParser::new(Format::ALL.map(Format::name));
    parser.try_map(|name| name.parse::<Format>())
}

pub(super) fn overlong() -> impl TypedValueParser<Value = Overlong> {
    let parser = PossibleValuesParser::new(Overlong::ALL.map(Overlong::name));
    parser.try_map(|name| name.parse::<Overlong>())
}
