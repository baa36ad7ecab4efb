//! Parity of generation with transformers' `generate`, on random tiny models that
//! `fixtures/generation/generate.py` saved with their answers, and the laws of stopping.
//!
//! Tokens are compared one by one: the fixture's margins say that no rounding can decide one.

#[path = "generation/fixture.rs"]
mod fixture;
#[path = "generation/sampling.rs"]
mod sampling;

use std::collections::BTreeSet;
use std::fs;

use fixture::{CASES, Fixture, Model, NEW, PROMPTS};
use graft_engine::generate::{Answer, End, GenerateError, Generator, Heard, Sampling, Session};
use graft_kernels::Precision;
use graft_model::param::host_values;
use graft_model::site::NORM;
use graft_model::{Context, Layout};
use graft_tests::Cpu;
use graft_tests::parity::{Deviations, cases};

/// Between the two likeliest tokens of a fixture; rounding moves logits near 4 by less than a tenth of it.
const MARGIN: f32 = 2e-4;
/// Of the largest logit: two logits, each as near as logits are in the comparison of models.
const MARGIN_MOVED: f64 = 4e-5;

fn run(model: &Model, prompts: &[Vec<u32>], stop: &[u32], sampling: &Sampling) -> Vec<Vec<u32>> {
    let generator = Generator { model, precision: Precision::F32, stop };
    tokens(generator.run(prompts, NEW, sampling, &mut |_, _| true).expect("finite weights"))
}

fn tokens(answers: Vec<Answer>) -> Vec<Vec<u32>> {
    answers.into_iter().map(|answer| answer.tokens).collect()
}

/// All prompts in one batch, then each alone.
fn both_ways(fixture: &Fixture, stop: &[u32], sampling: &Sampling) -> [Vec<Vec<u32>>; 2] {
    let Fixture { model, prompts, .. } = fixture;
    let alone = prompts.chunks(1).map(|prompt| run(model, prompt, stop, sampling).remove(0));
    [run(model, prompts, stop, sampling), alone.collect()]
}

fn varied(seed: u64) -> Sampling {
    Sampling { temperature: 1.0, top_p: 0.95, seed, ..Sampling::greedy() }
}

#[test]
fn every_fixture_is_compared_and_none_is_missing() {
    let entries = fs::read_dir(cases("generation")).expect("the folder of the cases");
    let names = entries.map(|entry| entry.expect("a folder that opened lists its entries"));
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let found: BTreeSet<String> = names.filter(|name| name != "generate.py").collect();
    let expected = CASES.iter().copied().chain(["sampling.safetensors"]).map(str::to_owned);
    assert_eq!(found, expected.collect());
}

/// Notes the answers to the prompts of a case, each with the first token that differs.
fn compare(
    deviations: &mut Deviations,
    row: &str,
    case: &str,
    found: &[Vec<u32>],
    answers: &Expected,
) {
    assert_eq!(found.len(), PROMPTS, "{case}: answers");
    for (prompt, (found, expected)) in found.iter().zip(&answers.tokens).enumerate() {
        let differs = found.iter().zip(expected).position(|(a, b)| a != b);
        let step = differs.unwrap_or(found.len().min(expected.len()));
        let margin = answers.margins.get(prompt).and_then(|margins| margins.get(step));
        let what = format!("{case}: prompt {prompt}, step {step}, margin {margin:?}");
        deviations.exact(row, &what, found == expected);
    }
}

/// Answers of the reference, and the margins of their tokens.
struct Expected {
    tokens: Vec<Vec<u32>>,
    margins: Vec<Vec<f32>>,
}

impl Expected {
    fn of(fixture: &Fixture, kind: &str) -> Self {
        let margins = fixture.expected.margins(&format!("{kind}_margins"));
        let smallest = margins.iter().flatten().copied().fold(f32::INFINITY, f32::min);
        assert!(smallest > MARGIN, "{kind}: rounding may decide a token, the margin is {smallest}");
        Self { tokens: fixture.expected.answers(kind), margins }
    }
}

#[test]
fn greedy_tokens_are_those_of_transformers_for_64_steps() {
    let mut deviations = Deviations::of("generation");
    for case in CASES {
        let fixture = Fixture::open(case);
        let expected = Expected::of(&fixture, "greedy");
        let [together, alone] = both_ways(&fixture, &[], &Sampling::greedy());
        compare(&mut deviations, "greedy tokens, batched", case, &together, &expected);
        compare(&mut deviations, "greedy tokens", case, &alone, &expected);
    }
    deviations.finish(2 * PROMPTS * CASES.len());
}

#[test]
fn penalised_tokens_are_those_of_transformers_for_64_steps() {
    let mut deviations = Deviations::of("generation");
    for case in CASES {
        let fixture = Fixture::open(case);
        let repetition_penalty = fixture.expected.floats("penalty")[0];
        let sampling = Sampling { repetition_penalty, ..Sampling::greedy() };
        let expected = Expected::of(&fixture, "penalised");
        let [together, alone] = both_ways(&fixture, &[], &sampling);
        compare(&mut deviations, "penalised tokens, batched", case, &together, &expected);
        compare(&mut deviations, "penalised tokens", case, &alone, &expected);
    }
    deviations.finish(2 * PROMPTS * CASES.len());
}

#[test]
fn stop_tokens_end_answers_where_transformers_ends_them() {
    let mut deviations = Deviations::of("generation");
    for case in CASES {
        let fixture = Fixture::open(case);
        let stops = fixture.expected.integers("stops");
        let tokens = fixture.expected.rows("stopped", "stopped_lengths");
        let whole = fixture.expected.integers("stopped_whole");
        for (answer, whole) in tokens.iter().zip(whole) {
            assert_eq!(answer.len() == NEW, whole == 1, "{case}: the fixture contradicts itself");
        }
        let expected = Expected { tokens, margins: Vec::new() };
        let [together, alone] = both_ways(&fixture, &stops, &Sampling::greedy());
        compare(&mut deviations, "stopped answers, batched", case, &together, &expected);
        compare(&mut deviations, "stopped answers", case, &alone, &expected);
    }
    deviations.finish(2 * PROMPTS * CASES.len());
}

/// Logits after every position of one sequence, computed at once and without a cache.
fn logits(model: &Model, tokens: &[u32]) -> Vec<f32> {
    let positions: Vec<u32> = (0..tokens.len() as u32).collect();
    let document = 0..tokens.len();
    let layout = Layout::of_documents(&model.config, &model.rope, &positions, &[document]);
    let hidden = model.hidden(tokens, &layout, Context::evaluation(Precision::F32));
    host_values::<Cpu>(model.logits(&hidden, Precision::F32))
}

#[test]
fn a_pass_without_cache_chooses_the_same_tokens_by_the_same_margins() {
    let mut deviations = Deviations::of("generation");
    for case in CASES {
        let fixture = Fixture::open(case);
        let Expected { tokens, margins } = Expected::of(&fixture, "greedy");
        for (place, prompt) in fixture.prompts.iter().enumerate() {
            let whole = [&prompt[..], &tokens[place]].concat();
            let logits = logits(&fixture.model, &whole[..whole.len() - 1]);
            let rows = logits.chunks(fixture.model.config.vocab_size).skip(prompt.len() - 1);
            let (mut chosen, mut moved) = (Vec::new(), 0.0_f64);
            for (row, &margin) in rows.zip(&margins[place]) {
                let mut order: Vec<usize> = (0..row.len()).collect();
                order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
                chosen.push(order[0] as u32);
                let largest = row.iter().fold(0.0_f32, |max, logit| max.max(logit.abs()));
                let found = row[order[0]] - row[order[1]];
                moved = moved.max(f64::from((found - margin).abs() / largest));
            }
            let what = format!("{case}: prompt {place}");
            deviations.exact("greedy tokens without cache", &what, chosen == tokens[place]);
            deviations.note("margins of greedy tokens", &what, moved, MARGIN_MOVED);
        }
    }
    deviations.finish(2 * PROMPTS * CASES.len());
}

#[test]
fn a_seed_gives_the_same_text_again_and_another_seed_another() {
    let Fixture { model, prompts, .. } = Fixture::open("llama3_1");
    let text = |seed| run(&model, &prompts, &[], &varied(seed));
    assert_eq!(text(5), text(5));
    for (one, other) in text(5).iter().zip(text(6)) {
        assert_ne!(*one, other);
    }
    // The same prompt twice in a batch is answered twice, not copied.
    let twice = run(&model, &[prompts[0].clone(), prompts[0].clone()], &[], &varied(5));
    assert_ne!(twice[0], twice[1]);
}

#[test]
fn a_stop_token_cuts_its_own_answer_and_changes_no_other() {
    for case in CASES {
        let Fixture { model, prompts, .. } = Fixture::open(case);
        let free = run(&model, &prompts, &[], &varied(5));
        for stop in [&free[0][20..22], &[free[1][3]], &[free[0][9], free[1][30], free[2][0]]] {
            let cut = free.iter().map(|answer| {
                let until = answer.iter().take_while(|id| !stop.contains(id));
                until.copied().collect::<Vec<u32>>()
            });
            assert_eq!(run(&model, &prompts, stop, &varied(5)), cut.collect::<Vec<_>>(), "{case}");
        }
    }
}

#[test]
fn fewer_new_tokens_are_the_first_of_more() {
    let Fixture { model, prompts, .. } = Fixture::open("wide_heads");
    let generator = Generator { model: &model, precision: Precision::F32, stop: &[] };
    let run = |max_new| generator.run(&prompts, max_new, &varied(5), &mut |_, _| true);
    let long = run(NEW).expect("finite weights");
    for max_new in [0, 1, 2, 33] {
        for (short, long) in run(max_new).expect("finite weights").iter().zip(&long) {
            assert_eq!(short.tokens[..], long.tokens[..max_new]);
            assert_eq!(short.end, End::Length);
        }
    }
}

#[test]
fn every_token_and_end_is_reported_and_the_listener_may_end_it() {
    let Fixture { model, prompts, .. } = Fixture::open("one_kv_head");
    let generator = Generator { model: &model, precision: Precision::F32, stop: &[] };
    let mut heard = vec![Vec::new(); prompts.len()];
    let answers = generator.run(&prompts, NEW, &varied(5), &mut |prompt, what| {
        let Heard::Token(id) = what else { panic!("{prompt} ended by itself") };
        heard[prompt].push(id);
        heard[1].len() < 10
    });
    let answers = answers.expect("finite weights");
    assert!(answers.iter().all(|answer| answer.end == End::Interrupted), "{answers:?}");
    let answers = tokens(answers);
    assert_eq!(answers, heard);
    assert_eq!(answers.iter().map(Vec::len).collect::<Vec<_>>(), [10, 10, 9]);
    // A stop token ends one answer, the number of tokens the others.
    let stop = [answers[0][5]];
    let generator = Generator { stop: &stop, ..generator };
    let mut ends = vec![None; prompts.len()];
    let stopped = generator.run(&prompts, NEW, &varied(5), &mut |prompt, what| {
        if let Heard::End(end) = what {
            assert!(ends[prompt].replace(end).is_none(), "{prompt} ended twice");
        }
        true
    });
    let stopped = stopped.expect("finite weights");
    assert_eq!(stopped[0].end, End::Stop);
    let told: Vec<End> = ends.into_iter().flatten().collect();
    assert_eq!(told, stopped.iter().map(|answer| answer.end).collect::<Vec<_>>());
}

#[test]
fn how_far_a_single_prompt_is_read_is_reported_and_the_listener_may_end_it() {
    let Fixture { model, prompts, .. } = Fixture::open("one_kv_head");
    let generator = Generator { model: &model, precision: Precision::F32, stop: &[] };
    let mut heard = Vec::new();
    let answers = generator.run(&prompts[..1], 2, &Sampling::greedy(), &mut |_, what| {
        heard.push(what);
        true
    });
    let [first, second] = answers.expect("finite weights")[0].tokens[..] else { panic!("two") };
    let of = prompts[0].len();
    let prompt = |read| Heard::Prompt { read, of };
    let end = Heard::End(End::Length);
    let expected = [prompt(0), prompt(of), Heard::Token(first), Heard::Token(second), end];
    assert_eq!(heard, expected);
    let stopped = generator.run(&prompts[..1], 2, &Sampling::greedy(), &mut |_, _| false);
    let [answer] = &stopped.expect("finite weights")[..] else { panic!("one answer") };
    assert_eq!((answer.end, answer.tokens.len()), (End::Interrupted, 0));
}

#[test]
fn no_answer_goes_beyond_the_positions_of_the_model() {
    let Fixture { mut model, prompts, .. } = Fixture::open("llama3_1");
    let free = run(&model, &prompts, &[], &Sampling::greedy());
    let longest = prompts.iter().map(Vec::len).max().expect("there are prompts") + 3;
    model.config.max_position_embeddings = longest;
    for prompt in [longest - 3, longest] {
        // The first prompt at this length, and as it is.
        let long: Vec<u32> = prompts[0].iter().copied().cycle().take(prompt).collect();
        let all = [&[long][..], &prompts[..]].concat();
        let found = run(&model, &all, &[], &Sampling::greedy());
        assert_eq!(found[0].len(), longest - prompt);
        for ((prompt, found), free) in prompts.iter().zip(&found[1..]).zip(&free) {
            let room = NEW.min(longest - prompt.len());
            assert_eq!(found[..], free[..room]);
        }
    }
}

#[test]
fn weights_that_are_no_numbers_give_an_error_and_no_text() {
    let Fixture { mut model, prompts, .. } = Fixture::open("one_kv_head");
    model.visit(&mut |param| {
        if param.name() == NORM {
            let shape = param.shape();
            param.put(vec![f32::NAN; param.len()], &shape);
        }
    });
    let generator = Generator { model: &model, precision: Precision::F32, stop: &[] };
    let error = generator.run(&prompts, 4, &Sampling::greedy(), &mut |_, _| panic!("a token"));
    let error = error.expect_err("there is nothing to choose by");
    let GenerateError::NotANumber { token, value } = error else { panic!("{error}") };
    assert!(token == 0 && value.is_nan(), "{error}");
}

#[test]
fn a_session_gives_the_answers_of_whole_prompts() {
    for case in CASES {
        let Fixture { model, prompts, .. } = Fixture::open(case);
        let generator = || Generator { model: &model, precision: Precision::F32, stop: &[] };
        let mut session = Session::new(generator());
        let mut prompt = prompts[0].clone();
        // Goes on, repeats itself, goes back to a beginning, and starts with something else.
        for turn in 0..6 {
            let expected = run(&model, &[prompt.clone()], &[], &Sampling::greedy()).remove(0);
            let answer = session
                .answer(prompt.clone(), NEW, &Sampling::greedy(), &mut |_| true)
                .expect("finite weights");
            assert_eq!(answer.tokens, expected, "{case}, turn {turn}");
            match turn {
                0 => prompt = [&prompt, &expected[..20], &prompts[1]].concat(),
                1 => {}
                2 => prompt.truncate(prompts[0].len() + 7),
                3 => prompt = prompts[1].clone(),
                _ => prompt.push(5),
            }
        }
    }
}
