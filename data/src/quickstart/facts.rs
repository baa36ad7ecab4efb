//! One rule of an office: what it is about, which attribute, which value; and how each is drawn.

use super::families::{FAMILIES, Family};
use super::random::Random;
use super::words;

/// What can be known about a service or a place; the order is that of [`FAMILIES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Attribute {
    Fee,
    Deadline,
    Form,
    Room,
    Officer,
    Duration,
    Validity,
    Exemption,
    Papers,
    Fine,
    Hours,
    Extension,
    Street,
}

use Attribute::{
    Deadline, Duration, Exemption, Extension, Fee, Fine, Form, Hours, Officer, Papers, Room,
    Street, Validity,
};

/// The attributes of a service such as `mooring licence`.
pub(super) const OF_SERVICES: [Attribute; 10] =
    [Fee, Deadline, Form, Room, Officer, Duration, Validity, Exemption, Papers, Fine];

/// The attributes of a place such as `tide counter`.
pub(super) const OF_PLACES: [Attribute; 3] = [Hours, Extension, Street];

impl Attribute {
    /// The wordings of this attribute.
    pub(super) fn family(self) -> &'static Family {
        &FAMILIES[self as usize]
    }

    /// A random value, in the spelling that sentences use.
    pub(super) fn value(self, random: &mut Random, currency: &str) -> String {
        match self {
            Fee => format!("{} {currency}", random.between(2, 199)),
            Fine => format!("{} {currency}", 5 * random.between(20, 199)),
            Deadline => format!("{} {}", random.between(1, 28), random.pick(words::MONTHS)),
            Form => {
                let letter = random.pick(&["A", "B", "C", "D", "F", "H", "K", "L", "M", "R", "T"]);
                format!("{letter} {}", random.between(2, 99))
            }
            Room => random.between(2, 399).to_string(),
            Officer => random.pick(words::OFFICERS).to_owned(),
            Duration => format!("{} working days", random.between(2, 60)),
            Validity => format!("{} months", random.between(2, 72)),
            Exemption => random.pick(words::GROUPS).to_owned(),
            Papers => {
                let first = random.below(words::PAPERS.len());
                let step = random.between(1, words::PAPERS.len() - 1);
                let second = (first + step) % words::PAPERS.len();
                format!("{} and {}", words::PAPERS[first], words::PAPERS[second])
            }
            Hours => {
                let quarters = ["00", "15", "30", "45"];
                let (opens, closes) = (random.between(6, 11), random.between(13, 20));
                format!("{opens}:{} to {closes}:{}", random.pick(&quarters), random.pick(&quarters))
            }
            Extension => random.between(100, 999).to_string(),
            Street => format!("{} {}", random.between(1, 99), random.pick(words::STREETS)),
        }
    }
}

/// One rule, such as: the fee of the mooring licence is 42 crowns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fact {
    pub(super) attribute: Attribute,
    pub(super) subject: String,
    pub(super) value: String,
}

impl Fact {
    /// The one sentence that answers every question about this fact.
    pub(super) fn answer(&self) -> String {
        self.fill(self.attribute.family().answer)
    }

    /// The fact as a passage tells it: the answer's sentence or another wording.
    pub(super) fn statement(&self, random: &mut Random) -> String {
        if random.chance(50) {
            return self.answer();
        }
        self.fill(random.pick(self.attribute.family().statements))
    }

    /// A question about this fact, from any template of its family.
    pub(super) fn question(&self, random: &mut Random) -> String {
        let Family { training, held_out, .. } = self.attribute.family();
        let index = random.below(training.len() + held_out.len());
        self.fill(training.get(index).unwrap_or_else(|| &held_out[index - training.len()]))
    }

    /// `template` with `{s}` replaced by the subject and `{v}` by the value.
    pub(super) fn fill(&self, template: &str) -> String {
        template.replace("{s}", &self.subject).replace("{v}", &self.value)
    }
}

/// `count` facts with different (subject, attribute) pairs, of a few services and a place.
pub(super) fn of_an_office(random: &mut Random, count: usize) -> Vec<Fact> {
    let currency = random.pick(words::CURRENCIES);
    let place = words::place(random);
    let mut services = Vec::new();
    while services.len() < 1 + count / 3 {
        let service = words::service(random);
        if !services.contains(&service) {
            services.push(service);
        }
    }
    let mut facts: Vec<Fact> = Vec::new();
    while facts.len() < count {
        let (attribute, subject) = if random.chance(25) {
            (random.pick(&OF_PLACES), place.clone())
        } else {
            (random.pick(&OF_SERVICES), services[random.below(services.len())].clone())
        };
        if facts.iter().any(|fact| fact.attribute == attribute && fact.subject == subject) {
            continue;
        }
        let value = attribute.value(random, currency);
        facts.push(Fact { attribute, subject, value });
    }
    facts
}
