//! Word banks of the invented offices. Towns and people are put together from invented names.

use super::random::Random;

/// First words of a service: `mooring` in `mooring licence`.
pub(super) const MATTERS: &[&str] = &[
    "mooring", "stall", "crane", "barrel", "ferry", "lantern", "bridge", "net", "cart", "garden",
    "reading", "boat", "kiln", "bakery", "music", "tree", "well", "tower", "roof", "market",
    "fishing", "wood", "stone", "wool", "salt", "grain", "bicycle", "dog", "kite", "chimney",
    "cellar", "window", "signal", "paint", "storage", "workshop", "tent", "sledge", "beehive",
    "parade",
];

/// Second words of a service: `licence` in `mooring licence`.
pub(super) const DEEDS: &[&str] =
    &["licence", "permit", "pass", "card", "certificate", "badge", "voucher", "contract"];

/// First words of a place: `tide` in `tide counter`.
pub(super) const SIDES: &[&str] = &[
    "north", "south", "old", "lower", "upper", "little", "long", "white", "green", "tide", "river",
    "fish", "rope", "map", "cloth", "fruit", "glass", "winter",
];

/// Second words of a place: `counter` in `tide counter`.
pub(super) const PLACES: &[&str] = &[
    "counter", "hall", "quay", "gate", "archive", "kitchen", "store", "yard", "desk", "school",
    "pool", "library", "shop", "park",
];

/// The services of the quickstart's office. The corpus has every word of them, never the pair.
pub(super) const TASK_SERVICES: &[&str] = &[
    "mooring licence",
    "stall permit",
    "crane voucher",
    "barrel certificate",
    "ferry pass",
    "lantern badge",
    "net card",
    "cart licence",
    "salt contract",
    "fishing permit",
    "storage contract",
    "signal certificate",
];

/// The places of the quickstart's office, kept out of the corpus in the same way.
pub(super) const TASK_PLACES: &[&str] = &["tide counter", "fish hall", "rope store", "lower quay"];

pub(super) const CURRENCIES: &[&str] =
    &["crowns", "marks", "florins", "shillings", "coins", "pennies"];

pub(super) const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) const WEEKDAYS: &[&str] =
    &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

pub(super) const OFFICERS: &[&str] = &[
    "harbour master",
    "first clerk",
    "second clerk",
    "bridge warden",
    "town surveyor",
    "head gardener",
    "night porter",
    "chief weigher",
    "market inspector",
    "deputy mayor",
    "keeper of maps",
    "head librarian",
    "tax collector",
    "fire warden",
    "school director",
    "senior archivist",
    "river pilot",
    "lamp keeper",
    "water engineer",
    "registrar",
    "treasurer",
    "town judge",
    "head cook",
    "chief carpenter",
];

pub(super) const GROUPS: &[&str] = &[
    "retired sailors",
    "students",
    "farmers",
    "nurses",
    "widows",
    "bakers",
    "young families",
    "visitors from the islands",
    "children under 12",
    "volunteers",
    "firefighters",
    "teachers",
    "apprentices",
    "members of the choir",
    "beekeepers",
    "night workers",
    "new residents",
    "people over 70",
    "potters",
    "weavers",
    "shepherds",
    "musicians",
    "owners of small boats",
    "former clerks",
];

pub(super) const PAPERS: &[&str] = &[
    "a signed letter",
    "a copy of the deed",
    "two photographs",
    "a drawing of the plan",
    "a bank receipt",
    "a health note",
    "a list of tools",
    "the old card",
    "a proof of address",
    "a birth record",
    "a map of the plot",
    "a sample of the goods",
    "a tax stamp",
    "the names of two witnesses",
    "a weight slip",
    "a school report",
];

pub(super) const STREETS: &[&str] = &[
    "Rope Lane",
    "Anchor Street",
    "Mill Road",
    "Candle Row",
    "Old Bridge Street",
    "Barley Square",
    "Copper Lane",
    "Willow Walk",
    "Tanner Street",
    "Saddle Road",
    "Pepper Row",
    "Long Stairs",
    "Heron Street",
    "Clay Lane",
    "Button Square",
    "Orchard Road",
];

const KINDS: &[&str] = &[
    "Bridge and Gardens Office",
    "Water Office",
    "Town Library",
    "School Board",
    "Park Office",
    "Lamp and Street Office",
    "Museum of Clocks",
    "Weights Office",
    "Craft School",
    "River Office",
    "Seed Store",
    "Travel Office",
    "Housing Office",
    "Theatre House",
    "Forest Office",
    "Wool Exchange",
    "Tool Library",
    "Swimming Hall",
];

const TOWN_STARTS: &[&str] = &[
    "Tovra", "Veska", "Orlu", "Brimka", "Dunza", "Mursa", "Selvo", "Wexi", "Yarlo", "Zolta",
    "Keldu", "Gralla", "Lorvi", "Pimra",
];

const TOWN_MIDDLES: &[&str] = &["", "ri", "len", "das", "mo", "tek"];

const TOWN_ENDS: &[&str] = &["mar", "vik", "holm", "gard", "stad", "fell", "haven", "ness"];

pub(super) const PEOPLE: &[&str] = &[
    "Arvo", "Belka", "Corvin", "Dessa", "Elmo", "Fenna", "Garto", "Hilve", "Ivo", "Jorla", "Kesto",
    "Lunna", "Merrit", "Nolva", "Orsin", "Pella", "Quin", "Rusko", "Sarnel", "Tilda", "Ubra",
    "Vanno", "Wilka", "Yenna",
];

pub(super) const GOODS: &[&str] = &[
    "apples", "candles", "ropes", "books", "pears", "nails", "eggs", "buttons", "lamps", "cups",
    "loaves", "stamps", "bricks", "fish", "maps", "shoes", "plums", "coats", "baskets", "pencils",
    "bottles", "wheels", "spoons", "chairs", "seeds", "needles", "kettles", "hats", "ladders",
    "cherries", "onions", "blankets", "mirrors", "hammers",
];

pub(super) const LOOKS: &[&str] = &[
    "tall", "narrow", "bright", "quiet", "dusty", "warm", "cold", "empty", "crowded", "clean",
    "broken", "pretty", "plain", "heavy", "round", "dark", "busy", "cheerful", "crooked", "wide",
];

pub(super) const COLOURS: &[&str] =
    &["red", "blue", "yellow", "grey", "brown", "black", "orange", "purple", "golden", "silver"];

pub(super) const ANIMALS: &[&str] = &[
    "cat", "dog", "goose", "horse", "goat", "sparrow", "swan", "donkey", "mouse", "rabbit", "crow",
    "hedgehog", "sheep", "duck",
];

pub(super) const THINGS: &[&str] = &[
    "windows",
    "benches",
    "tables",
    "stairs",
    "shelves",
    "doors",
    "clocks",
    "paintings",
    "pillars",
    "flags",
    "cupboards",
    "stoves",
    "carpets",
    "trees",
];

pub(super) const SEASONS: &[&str] = &["spring", "summer", "autumn", "winter"];

/// What somebody does, after `Belka` or `the old clerk`.
pub(super) const DEEDS_OF_PEOPLE: &[&str] = &[
    "sings a song",
    "sweeps the floor",
    "waters the flowers",
    "tells a long story",
    "repairs the clock",
    "drinks tea",
    "sleeps on a bench",
    "writes into a thick book",
    "feeds the birds",
    "plays the flute",
    "sells soup",
    "looks for a lost key",
    "paints the door",
    "counts the ships",
    "carries boxes upstairs",
    "laughs about a joke",
    "learns a poem",
    "bakes a cake",
    "draws the bridge",
    "waits for a friend",
];

pub(super) const WEATHER: &[&str] = &[
    "It was raining",
    "The sun was shining",
    "A cold wind blew",
    "The streets were quiet",
    "Fog lay on the river",
    "Snow had fallen in the night",
    "The bells were ringing",
    "The air smelled of bread",
];

/// A service such as `garden card`, never one of the quickstart's.
pub(super) fn service(random: &mut Random) -> String {
    pair(random, MATTERS, DEEDS, TASK_SERVICES)
}

/// A place such as `map archive`, never one of the quickstart's.
pub(super) fn place(random: &mut Random) -> String {
    pair(random, SIDES, PLACES, TASK_PLACES)
}

fn pair(random: &mut Random, first: &[&str], second: &[&str], reserved: &[&str]) -> String {
    loop {
        let name = format!("{} {}", random.pick(first), random.pick(second));
        if !reserved.contains(&name.as_str()) {
            return name;
        }
    }
}

/// An invented town such as `Tovrahaven`.
pub(super) fn town(random: &mut Random) -> String {
    let (start, middle) = (random.pick(TOWN_STARTS), random.pick(TOWN_MIDDLES));
    format!("{start}{middle}{}", random.pick(TOWN_ENDS))
}

/// An invented body such as `Water Office of Tovrahaven`.
pub(super) fn office(random: &mut Random) -> String {
    format!("{} of {}", random.pick(KINDS), town(random))
}
