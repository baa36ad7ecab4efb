//! Enums whose values a recipe names by a word.

/// Defines an enum with one name per value, `ALL` and `name()`.
macro_rules! named {
    ($(#[$meta:meta])* $vis:vis enum $name:ident { $($(#[$doc:meta])* $value:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $vis enum $name { $($(#[$doc])* $value,)+ }

        impl $name {
            /// Every value with the word that names it in a recipe.
            pub const ALL: &'static [(&'static str, Self)] = &[$(($word, Self::$value),)+];

            /// The words of all values, for lists of what is allowed.
            #[allow(dead_code, reason = "not every choice is listed outside of its own messages")]
            pub(crate) const LISTED: &str = {
                let words = concat!($($word, ", ",)+);
                words.split_at(words.len() - ", ".len()).0
            };

            /// The word that names it in a recipe.
            pub fn name(self) -> &'static str {
                match self { $(Self::$value => $word,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}
pub(crate) use named;
