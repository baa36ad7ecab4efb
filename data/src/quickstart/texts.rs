//! Running text of the corpus: rules, lists, notices, stories and letters about invented offices.

#![expect(
    clippy::format_push_string,
    reason = "a sentence a line reads better than error handling that cannot fail"
)]

use super::facts::{self, Fact};
use super::random::Random;
use super::words;

/// One document, 60 to 300 tokens long.
pub(super) fn text(random: &mut Random) -> String {
    match random.below(11) {
        0..=2 => rules(random),
        3 => list(random),
        4 => notice(random),
        5 => visit(random),
        6 => letter(random),
        7 => counting(random),
        8 => interview(random),
        9 => scene(random),
        _ => week(random),
    }
}

/// A passage that states `facts` in several sentences, under the name of an office.
pub(super) fn passage(random: &mut Random, facts: &[Fact]) -> String {
    let office = words::office(random);
    let opening = match random.below(5) {
        0 => format!("Rules of the {office}."),
        1 => format!("These are the rules of the {office}."),
        2 => format!("The {office} has new rules."),
        3 => format!("The {office} tells its visitors the following."),
        _ => format!("The {office}."),
    };
    let sentences: Vec<String> = facts.iter().map(|fact| fact.statement(random)).collect();
    format!("{opening} {}", sentences.join(" "))
}

fn rules(random: &mut Random) -> String {
    let count = random.between(4, 9);
    let facts = facts::of_an_office(random, count);
    let passage = passage(random, &facts);
    let closing = match random.below(4) {
        0 => format!(" The rules hold from {}.", date(random)),
        1 => format!(" Questions are answered every {}.", random.pick(words::WEEKDAYS)),
        2 => format!(" Signed: {}, {}.", random.pick(words::PEOPLE), random.pick(words::OFFICERS)),
        _ => String::new(),
    };
    passage + &closing
}

fn list(random: &mut Random) -> String {
    let count = random.between(4, 8);
    let facts = facts::of_an_office(random, count);
    let mut list = format!("{}\n", words::office(random));
    for (number, fact) in facts.iter().enumerate() {
        let mark =
            if count.is_multiple_of(2) { "-".to_owned() } else { format!("{}.", number + 1) };
        list += &format!(
            "{mark} {}, {}: {}\n",
            fact.subject,
            fact.attribute.family().label,
            fact.value
        );
    }
    list
}

fn notice(random: &mut Random) -> String {
    let currency = random.pick(words::CURRENCIES);
    let (service, day) = (words::service(random), date(random));
    let (before, rise) = (random.between(2, 120), random.between(1, 60));
    let after = before + rise;
    let (group, officer) = (random.pick(words::GROUPS), random.pick(words::OFFICERS));
    let reason = random.pick(&[
        "paper has become dear",
        "the roof must be mended",
        "two new clerks were hired",
        "the council asked for it",
        "the old rule was too hard to read",
    ]);
    format!(
        "Notice of the {}. Until {day} the {service} costs {before} {currency}. From {day} it costs {after} {currency}, \
         which is {rise} {currency} more, because {reason}. The {service} stays free for {group}. If you do not agree, \
         write to the {officer}.",
        words::office(random)
    )
}

fn visit(random: &mut Random) -> String {
    let facts = facts::of_an_office(random, 4);
    let (name, other) = (random.pick(words::PEOPLE), random.pick(words::PEOPLE));
    let (he, his) = random.pick(&[("he", "his"), ("she", "her")]);
    let mut story = format!(
        "{} on {} morning. {name} went to the {} and asked about the {}. ",
        random.pick(words::WEATHER),
        random.pick(words::WEEKDAYS),
        words::office(random),
        facts[0].subject
    );
    for (index, fact) in facts.iter().enumerate() {
        let (question, answer) = (fact.question(random), fact.answer());
        story += &match index % 3 {
            0 => format!(
                "\"{question}\" {he} asked. \"{answer}\" said {other}, the {}. ",
                random.pick(words::OFFICERS)
            ),
            1 => format!("On the wall {he} read: {} ", fact.statement(random)),
            _ => format!(
                "Then {he} asked: \"{question}\" {other} looked into the book. \"{answer}\" "
            ),
        };
    }
    story += &match random.below(3) {
        0 => format!("{name} wrote it down, thanked {other} and went home."),
        1 => format!(
            "{name} had forgotten {his} papers and came back on {}.",
            random.pick(words::WEEKDAYS)
        ),
        _ => format!("{name} was glad, for {he} had everything with {his} letters."),
    };
    story
}

fn letter(random: &mut Random) -> String {
    let facts = facts::of_an_office(random, 3);
    let (name, clerk) = (random.pick(words::PEOPLE), random.pick(words::PEOPLE));
    let questions: Vec<String> = facts.iter().map(|fact| fact.question(random)).collect();
    let answers: Vec<String> = facts.iter().map(Fact::answer).collect();
    format!(
        "To the {}, {}.\nDear {clerk}, I live at {} {}. {}\nWith kind wishes, {name}\n\nDear {name}, thank you for your letter. {}\n\
         With kind wishes, {clerk}, {}",
        words::office(random),
        date(random),
        random.between(1, 99),
        random.pick(words::STREETS),
        questions.join(" "),
        answers.join(" "),
        random.pick(words::OFFICERS)
    )
}

fn counting(random: &mut Random) -> String {
    let mut story = String::new();
    for _ in 0..random.between(2, 4) {
        let (name, other) = (random.pick(words::PEOPLE), random.pick(words::PEOPLE));
        let goods = random.pick(words::GOODS);
        let (first, second) = (random.between(2, 60), random.between(2, 40));
        let (large, small) = (first.max(second) + 1, first.min(second));
        story += &match random.below(3) {
            0 => format!(
                "{name} has {large} {goods}. {other} takes {small} of them. Now {name} has {} {goods}. ",
                large - small
            ),
            1 => format!(
                "{name} buys {first} {goods} and then {second} more. Together that is {} {goods}. ",
                first + second
            ),
            _ => format!(
                "On {} {name} sold {small} {goods}, and the day after {large}. {large} is more than {small}. ",
                random.pick(words::WEEKDAYS)
            ),
        };
    }
    story.trim_end().to_owned()
}

fn interview(random: &mut Random) -> String {
    let count = random.between(3, 6);
    let mut facts = facts::of_an_office(random, count);
    let mut text = passage(random, &facts);
    random.shuffle(&mut facts);
    for fact in &facts {
        text += &format!("\nQuestion: {}\nAnswer: {}", fact.question(random), fact.answer());
    }
    text
}

fn scene(random: &mut Random) -> String {
    let (place, season) = (words::place(random), random.pick(words::SEASONS));
    let mut text = format!(
        "The {place} of {} is {} and {}. It has {} {}, {} {} and a {} door. ",
        words::town(random),
        random.pick(words::LOOKS),
        random.pick(words::LOOKS),
        random.between(2, 40),
        random.pick(words::THINGS),
        random.between(2, 40),
        random.pick(words::THINGS),
        random.pick(words::COLOURS)
    );
    for _ in 0..random.between(2, 5) {
        let (name, deed) = (random.pick(words::PEOPLE), random.pick(words::DEEDS_OF_PEOPLE));
        let (look, colour) = (random.pick(words::LOOKS), random.pick(words::COLOURS));
        let animal = random.pick(words::ANIMALS);
        text += &match random.below(4) {
            0 => format!("In {season} {name} comes every day and {deed}. "),
            1 => format!(
                "A {colour} {animal} lives there, and {name} brings it {}. ",
                random.pick(words::GOODS)
            ),
            2 => format!(
                "The {} {deed}, while the {animal} sleeps under a {look} table. ",
                random.pick(words::OFFICERS)
            ),
            _ => format!("{}, and {name} {deed}. ", random.pick(words::WEATHER)),
        };
    }
    text.trim_end().to_owned()
}

fn week(random: &mut Random) -> String {
    let (name, place) = (random.pick(words::PEOPLE), words::place(random));
    let mut text = format!("{name} works in the {place} in {}. ", words::town(random));
    for day in words::WEEKDAYS.iter().take(random.between(3, 7)) {
        let (goods, number) = (random.pick(words::GOODS), random.between(2, 90));
        text += &match random.below(4) {
            0 => format!("On {day} {name} counts {number} {goods}. "),
            1 => format!("On {day} the {} comes for {goods}. ", random.pick(words::OFFICERS)),
            2 => format!(
                "On {day} {name} reads {number} letters from {}. ",
                random.pick(words::GROUPS)
            ),
            _ => format!(
                "On {day} {name} goes to {} and brings {goods}. ",
                random.pick(words::STREETS)
            ),
        };
    }
    text.trim_end().to_owned()
}

fn date(random: &mut Random) -> String {
    format!("{} {}", random.between(1, 28), random.pick(words::MONTHS))
}
